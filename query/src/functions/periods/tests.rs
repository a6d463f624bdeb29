use super::coalesce::coalesce;
use super::{BEGIN, Bounds, END, Relation, checked};

type Holds = fn(Bounds, Bounds) -> bool;

/// Allen's relations by name, each with what makes it hold.
const ALLEN: [(&str, Holds); 13] = [
    ("before", |(_, b), (c, _)| b < c),
    ("meets", |(_, b), (c, _)| b == c),
    ("overlaps", |(a, b), (c, d)| a < c && c < b && b < d),
    ("finished by", |(a, b), (c, d)| a < c && b == d),
    ("contains", |(a, b), (c, d)| a < c && d < b),
    ("starts", |(a, b), (c, d)| a == c && b < d),
    ("equals", |(a, b), (c, d)| a == c && b == d),
    ("started by", |(a, b), (c, d)| a == c && d < b),
    ("during", |(a, b), (c, d)| c < a && b < d),
    ("finishes", |(a, b), (c, d)| c < a && b == d),
    ("overlapped by", |(a, b), (c, d)| c < a && a < d && d < b),
    ("met by", |(a, _), (_, d)| d == a),
    ("after", |(a, _), (_, d)| d < a),
];

/// What of Allen's each relation covers.
const COVERED: [(Relation, &[&str]); 14] = [
    (Relation::Contains, &["equals", "contains", "started by", "finished by"]),
    (Relation::StrictlyContains, &["contains"]),
    (
        Relation::Overlaps,
        &[
            "overlaps",
            "finished by",
            "contains",
            "starts",
            "equals",
            "started by",
            "during",
            "finishes",
            "overlapped by",
        ],
    ),
    (Relation::Equals, &["equals"]),
    (Relation::Precedes, &["before", "meets"]),
    (Relation::StrictlyPrecedes, &["before"]),
    (Relation::ImmediatelyPrecedes, &["meets"]),
    (Relation::Succeeds, &["after", "met by"]),
    (Relation::StrictlySucceeds, &["after"]),
    (Relation::ImmediatelySucceeds, &["met by"]),
    (Relation::Leads, &["overlaps"]),
    (Relation::ImmediatelyLeads, &["finished by"]),
    (Relation::Lags, &["overlapped by"]),
    (Relation::ImmediatelyLags, &["started by"]),
];

fn periods() -> Vec<Bounds> {
    let ends = [BEGIN, 1, 2, 3, 4, END];
    ends.iter()
        .flat_map(|from| ends.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| from < to)
        .collect()
}

#[test]
fn every_pair_of_periods_stands_in_one_of_allens_relations_and_ours_cover_them() {
    assert_eq!(COVERED.map(|(relation, _)| relation), Relation::ALL);
    for one in periods() {
        for other in periods() {
            let stands: Vec<_> = ALLEN
                .iter()
                .filter(|(_, holds)| holds(one, other))
                .map(|(name, _)| *name)
                .collect();
            assert_eq!(stands.len(), 1, "{one:?} and {other:?}: {stands:?}");
            for (relation, covered) in COVERED {
                let expected = covered.contains(&stands[0]);
                assert_eq!(relation.holds(one, other), expected, "{relation:?} {one:?} {other:?}");
            }
        }
    }
}

#[test]
fn coalescing_joins_what_overlaps_or_meets() {
    let mut periods = vec![(5, 7), (1, 3), (3, 4), (6, END), (2, 3)];
    coalesce(&mut periods);
    assert_eq!(periods, [(1, 4), (5, END)]);
    let mut none = Vec::new();
    coalesce(&mut none);
    assert_eq!(none, []);
}

#[test]
fn a_period_holds_an_instant() {
    assert!(checked(1, 1).is_err() && checked(2, 1).is_err());
    assert_eq!(checked(1, 2).unwrap(), (1, 2));
}
