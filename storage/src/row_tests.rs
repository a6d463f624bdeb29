use super::*;

fn row() -> Row {
    Row::new([
        (ColumnId(1), Value::Int(-3)),
        (ColumnId(2), Value::Text("héllo".to_owned())),
        (ColumnId(3), Value::Null),
        (ColumnId(4), Value::Float(-0.5)),
        (ColumnId(5), Value::Decimal(i128::MIN)),
        (ColumnId(6), Value::Bytes(vec![0, 1, 255])),
        (ColumnId(7), Value::Date(-1)),
        (ColumnId(8), Value::Time(5)),
        (ColumnId(9), Value::Timestamp(i64::MAX)),
        (ColumnId(10), Value::Json("{\"a\":1}".to_owned())),
        (ColumnId(11), Value::List(vec![Value::Null, Value::Bool(true)])),
        (ColumnId(12), Value::Uuid(UUID.parse().unwrap())),
        (ColumnId(300), Value::Struct(vec![Value::Text(String::new()), Value::Int(1)])),
    ])
}

const UUID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

#[test]
fn a_uuid_is_a_tag_and_sixteen_bytes() {
    let uuid: uuid::Uuid = UUID.parse().unwrap();
    let mut bytes = Vec::new();
    put_value(&mut bytes, &Value::Uuid(uuid));
    assert_eq!(bytes, [&[14], uuid.as_bytes().as_slice()].concat());
    assert_eq!(read_value(&bytes).unwrap(), Value::Uuid(uuid));
    assert!(read_value(&bytes[..16]).is_err());
}

#[test]
fn a_put_round_trips_without_its_nulls() {
    let document = Document::of_put(&row());
    assert_eq!(document.view().unwrap().row(None).unwrap(), row().without_nulls());
    assert_eq!(Document::of_assertion(&row()).view().unwrap().row(None).unwrap(), row());
}

#[test]
fn only_the_columns_asked_for_are_decoded() {
    let document = Document::of_put(&row());
    let view = document.view().unwrap();
    let some = view.row(Some(&[ColumnId(300), ColumnId(1), ColumnId(77)])).unwrap();
    assert_eq!(some.fields().iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 300]);
    assert_eq!(view.get(ColumnId(2)).unwrap(), Some(Value::Text("héllo".to_owned())));
    assert_eq!(view.get(ColumnId(3)).unwrap(), None);
}

#[test]
fn long_values_widen_the_offsets() {
    for length in [254, 255, 256, 65_535, 65_536] {
        let row = Row::new([
            (ColumnId(0), Value::Text("x".repeat(length))),
            (ColumnId(1), Value::Bool(false)),
        ]);
        assert_eq!(Document::of_put(&row).view().unwrap().row(None).unwrap(), row);
    }
}

#[test]
fn a_patch_keeps_what_it_does_not_name() {
    let base = Document::of_put(&Row::new([
        (ColumnId(1), Value::Int(1)),
        (ColumnId(2), Value::Int(2)),
        (ColumnId(5), Value::Int(5)),
    ]));
    let patch = Document::of_assertion(&Row::new([
        (ColumnId(0), Value::Int(10)),
        (ColumnId(2), Value::Null),
        (ColumnId(3), Value::Null),
        (ColumnId(5), Value::Int(50)),
    ]));
    let ids = |document: &Document| {
        let row = document.view().unwrap().row(None).unwrap();
        row.fields().iter().map(|(id, _)| id.0).collect::<Vec<_>>()
    };
    let kept = Document::patched(Some(&base), &patch, false).unwrap();
    assert_eq!(ids(&kept), [0, 1, 2, 5]);
    let cleared = Document::patched(Some(&base), &patch, true).unwrap();
    assert_eq!(ids(&cleared), [0, 1, 5]);
    assert_eq!(cleared.view().unwrap().get(ColumnId(5)).unwrap(), Some(Value::Int(50)));
    let alone = Document::patched(None, &patch, false).unwrap();
    assert_eq!(ids(&alone), [0, 5]);
    let same = Document::of_put(&alone.view().unwrap().row(None).unwrap());
    assert_eq!(same, alone, "equal documents must have equal bytes");
}

#[test]
fn headers_round_trip() {
    let mut archive = LevelSet::default();
    for level in [0, 62, 64] {
        archive.insert(level);
    }
    let mut classes = LevelSet::default();
    classes.insert(CLASS_OPEN);
    classes.insert(36);
    assert_eq!(classes.iter().collect::<Vec<_>>(), [36, CLASS_OPEN]);
    let header = CurrentHeader {
        tombstone: false,
        valid_from: ValidTime::from_micros(-7),
        tx_from: TxId::new(1 << 40),
        timeline: true,
        archive,
        asserted: Some(Asserted { last: (ValidTime::BEGIN, -9), classes }),
        erased: Some(TxId::new(300)),
    };
    let mut bytes = Vec::new();
    header.put(&mut bytes, b"document");
    assert_eq!(CurrentHeader::read(&bytes).unwrap(), (header, &b"document"[..]));

    let mut bytes = Vec::new();
    CurrentHeader::NOTHING.put(&mut bytes, b"");
    assert_eq!(CurrentHeader::read(&bytes).unwrap(), (CurrentHeader::NOTHING, &b""[..]));
}

#[test]
fn a_change_names_what_was_replaced() {
    let period =
        |from, to| Period::new(ValidTime::from_micros(from), ValidTime::from_micros(to)).unwrap();
    let value = ChangeValue {
        changed: vec![period(0, 10), period(20, 30), period(40, 50)],
        replaced: vec![period(2, 3), period(4, 10), period(20, 30)],
    };
    let mut bytes = Vec::new();
    value.put(&mut bytes);
    assert_eq!(ChangeValue::read(&bytes).unwrap(), value);
}

#[test]
fn damaged_bytes_are_errors() {
    let document = Document::of_put(&row());
    let bytes = document.as_bytes();
    for cut in 1..bytes.len() {
        assert!(DocumentView::read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    assert!(CurrentHeader::read(&[9, 0]).is_err());
    assert!(TimelineHeader::read(&[]).is_err());
}

/// Stores that exist hold these bytes: another form needs another format number.
#[test]
fn the_bytes_of_format_1_stay_as_they_are() {
    let row = Row::new([(ColumnId(1), Value::Int(-3)), (ColumnId(2), Value::Text("a".to_owned()))]);
    assert_eq!(Document::of_put(&row).as_bytes(), [0, 2, 1, 2, 2, 4, 3, 5, 6, b'a']);

    let mut archive = LevelSet::default();
    archive.insert(62);
    let mut classes = LevelSet::default();
    classes.insert(CLASS_OPEN);
    let header = CurrentHeader {
        tombstone: false,
        valid_from: ValidTime::from_micros(1),
        tx_from: TxId::new(300),
        timeline: true,
        archive,
        asserted: Some(Asserted { last: (ValidTime::from_micros(1), -1), classes }),
        erased: None,
    };
    let mut bytes = Vec::new();
    header.put(&mut bytes, b"d");
    let expected: [&[u8]; 5] = [
        &[1, 14, 1, 0, 0, 0, 0, 0, 0, 0, 0xAC, 2],
        &[1, 62],
        &[1, 0, 0, 0, 0, 0, 0, 0, 1],
        &[1, 255],
        b"d",
    ];
    assert_eq!(bytes, expected.concat());

    let mut bytes = Vec::new();
    TimelineHeader { valid_to: ValidTime::END, tx_from: TxId::new(5) }.put(&mut bytes, b"d");
    assert_eq!(bytes, [1, 255, 255, 255, 255, 255, 255, 255, 127, 5, b'd']);

    let first = Period::new(ValidTime::from_micros(0), ValidTime::from_micros(1)).unwrap();
    let mut bytes = Vec::new();
    ChangeValue { changed: vec![first], replaced: vec![first] }.put(&mut bytes);
    assert_eq!(bytes, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn damaged_documents_are_errors() {
    let two = Document::of_put(&Row::new([
        (ColumnId(1), Value::Bool(true)),
        (ColumnId(2), Value::Bool(true)),
    ]));
    let mut swapped = two.as_bytes().to_vec();
    let at = swapped.windows(2).position(|pair| pair == [1, 2]).unwrap();
    swapped.swap(at, at + 1);
    assert!(DocumentView::read(&swapped).unwrap().row(None).is_err());
    // Every list holds the next: as deep as there are bytes.
    let nested = |depth: usize| {
        (0..depth).fold(vec![TAG_NULL], |inside, _| {
            let mut out = vec![TAG_LIST];
            put_varint(&mut out, 1);
            put_varint(&mut out, inside.len() as u64);
            out.extend_from_slice(&inside);
            out
        })
    };
    assert!(read_value(&nested(NESTED_MAX)).is_ok());
    assert!(read_value(&nested(20_000)).is_err());
}
