use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, StringArray,
};

use super::tournament::Tournament;
use super::*;
use crate::tests::random::Random;

#[test]
fn a_tournament_comes_to_what_all_its_values_come_to() {
    let mut random = Random(5);
    let mut tree = Tournament::default();
    let mut slots = [None; 100];
    for round in 0..5_000 {
        // First few slots, then many, so that it grows.
        let slot = random.place(if round < 500 { 3 } else { 100 });
        if slots[slot].is_none() {
            let value = random.place(1_000);
            slots[slot] = Some(value);
            tree.put(slot, value, Ord::max);
        } else {
            slots[slot] = None;
            tree.remove(slot, Ord::max);
        }
        if random.place(300) == 0 {
            slots = [None; 100];
            tree.clear();
        }
        assert_eq!(tree.winner(), slots.iter().copied().flatten().max(), "round {round}");
        assert_eq!(tree.count(), slots.iter().flatten().count());
    }
}

fn opened(rows: &[u32]) -> Vec<Step> {
    rows.iter().map(|row| Step::Open { row: *row, slot: *row }).chain([Step::Emit]).collect()
}

/// Opens all rows, closes one by one, and returns what each interval has.
fn run(function: Function, argument: &ArrayRef, output: &DataType) -> ArrayRef {
    let mut state = state(function, Some(argument.data_type()), output).unwrap();
    let all: Vec<u32> = (0..u32::try_from(argument.len()).unwrap()).collect();
    let mut steps = opened(&all);
    for slot in all {
        steps.extend([Step::Close { slot }, Step::Emit]);
    }
    let (first, rest) = steps.split_at(steps.len() / 2);
    state.begin(argument).unwrap();
    state.replay(first).unwrap();
    state.replay(rest).unwrap();
    state.finish().unwrap()
}

#[test]
fn float_sums_leave_no_error_behind() {
    let values: ArrayRef =
        Arc::new(Float64Array::from(vec![Some(1e300), Some(f64::INFINITY), None, Some(0.1)]));
    let sums = run(Function::Sum, &values, &DataType::Float64);
    let infinite = f64::INFINITY;
    let expected =
        Float64Array::from(vec![Some(infinite), Some(infinite), Some(0.1), Some(0.1), None]);
    assert_eq!(sums.as_primitive::<Float64Type>(), &expected);
}

#[test]
fn integer_sums_are_exact_or_refused() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 5, 7]));
    let whole = Some(&DataType::Int64);
    let following = || {
        let mut sum = state(Function::Sum, whole, &DataType::Int64).unwrap();
        sum.begin(&values).unwrap();
        sum
    };
    // What does not fit in between does no harm.
    let all = opened(&[0, 1, 2]);
    let (opens, emit) = all.split_at(3);
    let mut sum = following();
    sum.replay(opens).unwrap();
    sum.replay(&[Step::Close { slot: 0 }]).unwrap();
    sum.replay(emit).unwrap();
    let sums = sum.finish().unwrap();
    assert_eq!(sums.as_primitive::<Int64Type>(), &Int64Array::from(vec![12]));
    let error = crate::Error::from(following().replay(&all).unwrap_err());
    assert_eq!(error.sqlstate(), "22003", "{error}");
    let means = run(Function::Avg, &values, &DataType::Float64);
    assert!((means.as_primitive::<Float64Type>().value(1) - 6.0).abs() < f64::EPSILON);
}

#[test]
fn averages_of_decimals_have_more_digits() {
    let values = Decimal128Array::from(vec![Some(100), Some(1), None])
        .with_precision_and_scale(10, 2)
        .unwrap();
    let values: ArrayRef = Arc::new(values);
    let means = run(Function::Avg, &values, &DataType::Decimal128(14, 6));
    let means = means.as_primitive::<Decimal128Type>();
    assert_eq!(means.iter().collect::<Vec<_>>(), [Some(505_000), Some(10_000), None, None]);
}

#[test]
fn the_least_and_the_greatest_of_texts() {
    let values: ArrayRef =
        Arc::new(StringArray::from(vec![Some("b"), Some("a"), None, Some("c"), Some("")]));
    let least = run(Function::Min, &values, &DataType::Utf8);
    let least: Vec<_> = least.as_string::<i32>().iter().collect();
    assert_eq!(least, [Some(""), Some(""), Some(""), Some(""), Some(""), None]);
    let greatest = run(Function::Max, &values, &DataType::Utf8);
    let greatest: Vec<_> = greatest.as_string::<i32>().iter().collect();
    assert_eq!(greatest, [Some("c"), Some("c"), Some("c"), Some("c"), Some(""), None]);
}

#[test]
fn clearing_forgets_all_rows() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![3, 9]));
    let functions =
        [(Function::Count, 1), (Function::Sum, 9), (Function::Min, 9), (Function::Max, 9)];
    for (function, expected) in functions {
        let mut state = state(function, Some(&DataType::Int64), &DataType::Int64).unwrap();
        let mut steps = opened(&[0, 1]);
        steps.extend([Step::Clear, Step::Open { row: 1, slot: 0 }, Step::Emit]);
        state.begin(&values).unwrap();
        state.replay(&steps).unwrap();
        let found = state.finish().unwrap();
        assert_eq!(found.as_primitive::<Int64Type>().value(1), expected, "{function:?}");
    }
}

#[test]
fn a_type_without_a_form_is_refused() {
    let error = state(Function::Sum, Some(&DataType::Utf8), &DataType::Utf8).err().unwrap();
    assert!(error.to_string().contains("has no form over constant intervals"), "{error}");
}
