//! `PERIOD(a, b)`, the bounds of a period, and what periods have in common.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StructArray, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::plan_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::{
    BEGIN, END, Instants, Periods, PeriodsBuilder, answer, checked, coerced_instant,
    coerced_period, fields, is_period,
};
use crate::columns::{period_type, timestamp_type};
use crate::error::Result;

pub(super) fn register(state: &mut SessionState) -> Result<()> {
    let mut functions = vec![ScalarUDF::from(MakePeriod::new()), intersection()];
    for end in [End::Lower, End::Upper] {
        // DataFusion's own are about letters.
        let of_text = state.udf(end.name())?;
        functions.push(ScalarUDF::from(Bound { end, of_text }));
        functions.push(ScalarUDF::from(IsOpen { end, signature: user_defined() }));
    }
    for function in functions {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}

/// The function that answers what periods have in common.
pub(super) fn intersection() -> ScalarUDF {
    ScalarUDF::from(Intersection { signature: user_defined() })
}

fn user_defined() -> Signature {
    Signature::user_defined(Volatility::Immutable)
}

/// `PERIOD(from, to)`: a NULL bound is an open end.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MakePeriod {
    signature: Signature,
    aliases: Vec<String>,
}

impl MakePeriod {
    fn new() -> Self {
        Self { signature: user_defined(), aliases: vec!["tstzrange".to_owned()] }
    }
}

impl ScalarUDFImpl for MakePeriod {
    fn name(&self) -> &str {
        "period"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(period_type().data_type())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        Ok(answer("period"))
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        if given.len() != 2 {
            return plan_err!("PERIOD takes its two bounds");
        }
        given.iter().map(|one| coerced_instant("PERIOD", one)).collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let rows = args.number_rows;
        let from = Instants::of(&args.args[0].to_array(rows)?)?;
        let to = Instants::of(&args.args[1].to_array(rows)?)?;
        if let Some(made) = made_whole(&from, &to)? {
            return Ok(ColumnarValue::Array(Arc::new(made)));
        }
        let mut made = PeriodsBuilder::with_capacity(rows);
        for row in 0..rows {
            let (from, to) = (from.get(row).unwrap_or(BEGIN), to.get(row).unwrap_or(END));
            made.push(Some(checked(from, to)?));
        }
        Ok(ColumnarValue::Array(Arc::new(made.finish())))
    }
}

/// Makes periods of columns as they are; nothing where a bound is written as an end of time.
fn made_whole(from: &Instants, to: &Instants) -> Result<Option<StructArray>> {
    let (from, to) = (&from.0, &to.0);
    let written = |bounds: &[i64]| bounds.contains(&BEGIN) || bounds.contains(&END);
    if written(from.values()) || written(to.values()) {
        return Ok(None);
    }
    let may_be_open = from.null_count() + to.null_count() > 0;
    for (row, (begins, ends)) in from.values().iter().zip(to.values()).enumerate() {
        if begins >= ends && !(may_be_open && (from.is_null(row) || to.is_null(row))) {
            checked(*begins, *ends)?;
        }
    }
    let bounds: Vec<ArrayRef> = vec![Arc::new(from.clone()), Arc::new(to.clone())];
    Ok(Some(StructArray::new(fields(), bounds, None)))
}

/// One of a period's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    Lower,
    Upper,
}

impl End {
    const fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Upper => "upper",
        }
    }

    /// Returns the bound at this end; nothing where it is open.
    fn of(self, (from, to): (i64, i64)) -> Option<i64> {
        match self {
            Self::Lower => (from != BEGIN).then_some(from),
            Self::Upper => (to != END).then_some(to),
        }
    }
}

/// `LOWER(period)` and `UPPER(period)`, NULL at an open end; of text, its letters.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bound {
    end: End,
    of_text: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bound {
    fn name(&self) -> &str {
        self.end.name()
    }

    fn signature(&self) -> &Signature {
        // That of text takes more than one type, this one any.
        static ANY: std::sync::LazyLock<Signature> = std::sync::LazyLock::new(user_defined);
        &ANY
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        match arguments {
            [one] if is_period(one) => Ok(timestamp_type()),
            _ => self.of_text.return_type(arguments),
        }
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        match given {
            [one] if is_period(one) => Ok(vec![period_type().data_type()]),
            [DataType::Null] => Ok(vec![DataType::Utf8]),
            [DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View] => Ok(given.to_vec()),
            [DataType::Dictionary(_, values)] => Ok(vec![values.as_ref().clone()]),
            [other] if other.is_primitive() || *other == DataType::Boolean => {
                Ok(vec![DataType::Utf8])
            }
            _ => plan_err!("{} takes a period or a text", self.name().to_uppercase()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        if !is_period(&args.args[0].data_type()) {
            return self.of_text.inner().invoke_with_args(args);
        }
        let periods = Periods::of(&args.args[0].to_array(args.number_rows)?)?;
        let mut bounds = TimestampMicrosecondBuilder::with_capacity(args.number_rows)
            .with_data_type(timestamp_type());
        for row in 0..args.number_rows {
            bounds.append_option(periods.get(row).and_then(|period| self.end.of(period)));
        }
        Ok(ColumnarValue::Array(Arc::new(bounds.finish())))
    }
}

/// Returns a bound of a period as it is compared: an open end is the end of time.
pub(crate) fn raw(end: End, period: &Expr) -> Expr {
    let function = ScalarUDF::from(RawBound { end, signature: user_defined() });
    function.call(vec![period.clone()])
}

/// `__period_from(period)` and `__period_to(period)`: a bound for comparing, never NULL of a period.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RawBound {
    end: End,
    signature: Signature,
}

impl ScalarUDFImpl for RawBound {
    fn name(&self) -> &str {
        match self.end {
            End::Lower => "__period_from",
            End::Upper => "__period_to",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(timestamp_type())
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        given.iter().map(|one| coerced_period(self.name(), one)).collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let periods = Periods::of(&args.args[0].to_array(args.number_rows)?)?;
        Ok(ColumnarValue::Array(Arc::new(periods.bounds(self.end))))
    }
}

/// `LOWER_INF(period)` and `UPPER_INF(period)`: whether an end is open.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IsOpen {
    end: End,
    signature: Signature,
}

impl ScalarUDFImpl for IsOpen {
    fn name(&self) -> &str {
        match self.end {
            End::Lower => "lower_inf",
            End::Upper => "upper_inf",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        match given {
            [one] => Ok(vec![coerced_period(&self.name().to_uppercase(), one)?]),
            _ => plan_err!("{} takes one period", self.name().to_uppercase()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let periods = Periods::of(&args.args[0].to_array(args.number_rows)?)?;
        let open: BooleanArray = (0..args.number_rows)
            .map(|row| periods.get(row).map(|period| self.end.of(period).is_none()))
            .collect();
        Ok(ColumnarValue::Array(Arc::new(open)))
    }
}

/// `a * b`: what periods have in common, NULL where that is nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Intersection {
    signature: Signature,
}

impl ScalarUDFImpl for Intersection {
    fn name(&self) -> &str {
        "period_intersection"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(period_type().data_type())
    }

    fn return_field_from_args(&self, _args: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        Ok(answer(self.name()))
    }

    fn coerce_types(&self, given: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        if given.is_empty() {
            return plan_err!("an intersection takes periods");
        }
        given.iter().map(|one| coerced_period("an intersection", one)).collect()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let mut common = PeriodsBuilder::with_capacity(args.number_rows);
        let arrays = arrays(&args)?;
        for row in 0..args.number_rows {
            common.push(common_of(&arrays, row).filter(|(from, to)| from < to));
        }
        Ok(ColumnarValue::Array(Arc::new(common.finish())))
    }
}

/// Returns the arguments as columns of periods.
pub(super) fn arrays(args: &ScalarFunctionArgs) -> DataFusionResult<Vec<Periods>> {
    let periods = |one: &ColumnarValue| {
        let array: ArrayRef = one.to_array(args.number_rows)?;
        Periods::of(&array)
    };
    args.args.iter().map(periods).collect()
}

/// Returns the latest beginning and the earliest end in a row; nothing where one is NULL. There is an
/// instant in common where the first is before the second.
pub(super) fn common_of(periods: &[Periods], row: usize) -> Option<(i64, i64)> {
    periods.iter().try_fold((BEGIN, END), |(latest, earliest), one| {
        let (from, to) = one.get(row)?;
        Some((latest.max(from), earliest.min(to)))
    })
}
