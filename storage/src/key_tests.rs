use everwhen_fuzz::Random;

use super::*;

fn instant(random: &mut Random) -> i64 {
    match random.below(4) {
        0 => i64::try_from(random.below(40)).unwrap() - 20,
        1 => 1_700_000_000_000_000 + i64::try_from(random.below(1_000_000)).unwrap(),
        2 => i64::MIN + i64::try_from(random.below(3)).unwrap(),
        _ => random.number().cast_signed(),
    }
}

fn text(random: &mut Random) -> String {
    let length = random.below(5);
    (0..length).map(|_| ['\0', '\u{1}', 'a', 'b', 'ÿ'][random.below(5)]).collect()
}

#[test]
fn bytes_of_keys_sort_as_their_values() {
    let mut random = Random::new(1);
    let kinds = [&ColumnType::Text, &ColumnType::Int64, &ColumnType::Text, &ColumnType::Bool];
    let mut keys = Vec::new();
    for _ in 0..2_000 {
        let values =
            (text(&mut random), instant(&mut random), text(&mut random), random.below(2) == 1);
        let key = RowKey::encode(&[
            Value::Text(values.0.clone()),
            Value::Int(values.1),
            Value::Text(values.2.clone()),
            Value::Bool(values.3),
        ])
        .unwrap();
        let back = key.decode(&kinds).unwrap();
        assert_eq!(back[0], Value::Text(values.0.clone()));
        assert_eq!(back[1], Value::Int(values.1));
        keys.push((values, key));
    }
    let mut by_value = keys.clone();
    by_value.sort_by(|a, b| a.0.cmp(&b.0));
    keys.sort_by(|a, b| a.1.cmp(&b.1));
    assert!(by_value.iter().map(|k| &k.0).eq(keys.iter().map(|k| &k.0)));
}

#[test]
fn no_key_is_a_prefix_of_another() {
    let mut random = Random::new(2);
    let mut keys: Vec<_> =
        (0..1_000).map(|_| RowKey::encode(&[Value::Text(text(&mut random))]).unwrap().0).collect();
    keys.sort();
    keys.dedup();
    assert!(keys.windows(2).all(|pair| !pair[1].starts_with(&pair[0])));
}

#[test]
fn floats_sort_by_number() {
    let sorted = [f64::NEG_INFINITY, -1.5, -1e-300, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
    let bytes: Vec<_> = sorted.iter().map(|v| float_order(*v)).collect();
    assert!(bytes.is_sorted());
    assert_eq!(float_order(-0.0), float_order(0.0));
}

#[test]
fn a_fork_lies_in_its_period_and_is_found_from_every_instant_in_it() {
    let mut random = Random::new(3);
    for round in 0..100_000 {
        let (a, b) = (instant(&mut random), instant(&mut random));
        let (from, to) = (a.min(b), a.max(b));
        let Some(period) =
            Period::nonempty(ValidTime::from_micros(from), ValidTime::from_micros(to))
        else {
            continue;
        };
        let fork = Fork::of(&period);
        let at = ValidTime::from_micros(unflip(fork.at));
        assert!(period.contains(at), "round {round}: {period:?} {fork:?}");
        assert_eq!(u32::from(fork.level), fork.at.trailing_zeros(), "round {round}");
        for instant in [
            from,
            to - 1,
            from + (to - 1)
                .wrapping_sub(from)
                .cast_unsigned()
                .checked_div(2)
                .unwrap()
                .cast_signed(),
        ] {
            let found = Fork::containing(ValidTime::from_micros(instant), fork.level);
            assert_eq!(found, fork, "round {round}: {period:?} at {instant}");
        }
    }
}

#[test]
fn an_assertion_starts_at_most_two_to_its_class_before_what_it_covers() {
    let mut random = Random::new(4);
    for _ in 0..10_000 {
        let (a, b) = (instant(&mut random), instant(&mut random));
        let (from, to) = (ValidTime::from_micros(a.min(b)), ValidTime::from_micros(a.max(b)));
        let Some(period) = Period::nonempty(from, to) else { continue };
        let class = duration_class(&period);
        let length = u128::from(flip(to.micros()) - flip(from.micros()));
        if class != CLASS_OPEN {
            assert!((1_u128 << class) <= length && length < (1_u128 << (class + 1)));
        }
    }
}

#[test]
fn suffixes_round_trip() {
    let tenant = Tenant::new("acme").unwrap();
    let key = RowKey::encode(&[Value::Text("e\u{0}1".to_owned())]).unwrap();
    let prefix = row_prefix(&tenant, TableId(7), &key);
    assert_eq!(split_row_prefix(&prefix).unwrap(), (tenant.clone(), TableId(7), key.clone()));

    let from = ValidTime::from_micros(-5);
    assert_eq!(timeline_from(&timeline(&prefix, from)).unwrap(), from);
    let fork = Fork { level: 3, at: 8 };
    let mut archived = Vec::new();
    archive_into(&mut archived, &prefix, fork, TxId::new(9));
    assert_eq!(split_archive(&archived).unwrap(), (fork, TxId::new(9)));
    assert_eq!(without_suffix(&archived, ARCHIVE_SUFFIX).unwrap(), prefix);
    let position = Position { valid_from: from, order: -2, tx: TxId::new(4), ordinal: 1 };
    let suffix = assertion_suffix(12, &position);
    assert_eq!(split_assertion_suffix(&suffix).unwrap(), (12, position));
    let changed = change(TxId::new(4), &tenant, TableId(7), &key.0);
    assert_eq!(
        split_change(&changed).unwrap(),
        (TableId(7), TxId::new(4), tenant.clone(), key.clone())
    );
    let bound = boundary(from, &tenant, TableId(7), &key.0);
    assert_eq!(split_boundary(&bound).unwrap(), (TableId(7), from, tenant, key));
}

#[test]
fn prefix_end_is_the_next_key_after_all_with_the_prefix() {
    assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
    assert_eq!(prefix_end(&[1, 0xFF]), Some(vec![2]));
    assert_eq!(prefix_end(&[0xFF, 0xFF]), None);
}

/// Stores that exist hold these bytes: another form needs another format number.
#[test]
fn the_bytes_of_keys_stay_as_they_are() {
    let tenant = Tenant::new("ab").unwrap();
    let key = RowKey::encode(&[Value::Text("k\0".to_owned()), Value::Int(-1)]).unwrap();
    let row_key = [b'k', 0, 0xFF, 0, 1, 0x7F, 255, 255, 255, 255, 255, 255, 255];
    assert_eq!(key.as_bytes(), row_key);
    let prefix = row_prefix(&tenant, TableId(7), &key);
    assert_eq!(prefix, [&[b'a', b'b', 0, 0, 0, 0, 7], row_key.as_slice()].concat());
    let from = ValidTime::from_micros(2);
    assert_eq!(timeline(b"p", from), [b'p', 0x80, 0, 0, 0, 0, 0, 0, 2]);
    let suffix = archive_suffix(Fork { level: 1, at: 2 }, TxId::new(3));
    assert_eq!(suffix, [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn uuids_stand_in_keys_as_their_bytes_in_the_order_of_their_texts() {
    let mut random = Random::new(5);
    let mut uuid = || Uuid::from_u64_pair(random.number(), random.number());
    for _ in 0..1_000 {
        let (a, b) = (uuid(), uuid());
        let key = |uuid: Uuid| RowKey::encode(&[Value::Uuid(uuid), Value::Int(1)]).unwrap();
        assert_eq!(key(a).cmp(&key(b)), a.to_string().cmp(&b.to_string()), "{a} {b}");
        let kinds = [ColumnType::Uuid, ColumnType::Int64];
        assert_eq!(key(a).decode(&kinds.each_ref()).unwrap(), [Value::Uuid(a), Value::Int(1)]);
        assert!(is_key_of(key(a).as_bytes(), &kinds));
        assert_eq!(key(a).as_bytes().len(), 24);
    }
    assert!(!is_key_of(&[0; 15], &[ColumnType::Uuid]));
}
