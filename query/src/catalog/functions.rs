//! Functions of Postgres about itself that the catalogs' crate has none of.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::Names;
use crate::error::Result;

/// The version of Postgres that the catalogs are like.
pub const SERVER_VERSION: &str = "16.6";

/// Settings that tools look up by function, with their values.
const SETTINGS: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("search_path", "public"),
    ("timezone", "UTC"),
    ("datestyle", "ISO, MDY"),
    ("client_encoding", "UTF8"),
    ("server_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("transaction_isolation", "serializable"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
    ("is_superuser", "on"),
];

/// Registers the functions with a catalog session.
pub fn register(session: &SessionContext, names: &Names) -> Result<()> {
    let version = format!("PostgreSQL {SERVER_VERSION} (Everwhen {})", env!("CARGO_PKG_VERSION"));
    let text = |value: Option<String>| ScalarValue::Utf8(value);
    let none = || text(None);
    let fixed = [
        ("version", text(Some(version))),
        ("session_user", text(Some(names.user.clone()))),
        ("current_catalog", text(Some(names.database.clone()))),
        ("pg_get_userbyid", text(Some(names.user.clone()))),
        ("pg_get_viewdef", none()),
        ("pg_get_triggerdef", none()),
        ("pg_get_ruledef", none()),
        ("pg_get_functiondef", none()),
        ("pg_get_function_arguments", none()),
        ("pg_get_function_result", none()),
        ("pg_get_function_identity_arguments", none()),
        ("pg_get_serial_sequence", none()),
        ("pg_tablespace_location", none()),
        ("inet_server_addr", none()),
        ("inet_client_addr", none()),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_type_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_function_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_has_role", ScalarValue::Boolean(Some(true))),
        ("has_function_privilege", ScalarValue::Boolean(Some(true))),
        ("has_sequence_privilege", ScalarValue::Boolean(Some(true))),
        ("has_column_privilege", ScalarValue::Boolean(Some(true))),
        ("row_security_active", ScalarValue::Boolean(Some(false))),
        ("to_regtype", ScalarValue::Int32(None)),
        ("inet_server_port", ScalarValue::Int32(None)),
        ("pg_database_size", ScalarValue::Int64(Some(0))),
        ("pg_table_size", ScalarValue::Int64(Some(0))),
        ("pg_indexes_size", ScalarValue::Int64(Some(0))),
        ("txid_current", ScalarValue::Int64(Some(0))),
        ("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
    ];
    for (name, value) in fixed {
        session.register_udf(ScalarUDF::from(Fixed::new(name, value)));
    }
    session.register_udf(ScalarUDF::from(Setting::new("current_setting", 0)));
    session.register_udf(ScalarUDF::from(Setting::new("set_config", 1)));
    session.register_udf(ScalarUDF::from(IndexText::new()));
    session.register_udf(ScalarUDF::from(Format::new()));
    Ok(())
}

/// A function that answers the same whatever it is asked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fixed {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Fixed {
    fn new(name: &'static str, value: ScalarValue) -> Self {
        let any = Signature::one_of(
            vec![
                datafusion::logical_expr::TypeSignature::Nullary,
                datafusion::logical_expr::TypeSignature::VariadicAny,
            ],
            Volatility::Stable,
        );
        Self { name, value, signature: any }
    }
}

impl ScalarUDFImpl for Fixed {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `current_setting(name)`, and `set_config(name, value, local)`, which changes nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Setting {
    name: &'static str,
    /// Which argument is answered: the first is looked up.
    answered: usize,
    signature: Signature,
}

impl Setting {
    fn new(name: &'static str, answered: usize) -> Self {
        Self { name, answered, signature: Signature::variadic_any(Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Setting {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let text = match args.args.get(self.answered) {
            Some(ColumnarValue::Scalar(scalar)) => scalar.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let value = match (self.answered, text) {
            (0, Some(name)) => {
                let known = SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
                known.map(|(_, value)| (*value).to_owned())
            }
            (_, text) => text,
        };
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
    }
}

/// `pg_get_indexdef(index, ..)`: the only indexes shown are those of keys.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IndexText {
    signature: Signature,
}

impl IndexText {
    fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Stable) }
    }
}

impl ScalarUDFImpl for IndexText {
    fn name(&self) -> &str {
        "pg_get_indexdef"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let texts = vec!["PRIMARY KEY"; args.number_rows];
        let array: ArrayRef = Arc::new(StringArray::from(texts));
        Ok(ColumnarValue::Array(array))
    }
}

/// `format(text, ..)` of Postgres: `%s` a value, `%I` an identifier, `%L` a literal, `%%` a percent sign.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Format {
    signature: Signature,
}

impl Format {
    fn new() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let texts: Vec<ArrayRef> = columns
            .iter()
            .map(|column| arrow::compute::cast(column, &DataType::Utf8))
            .collect::<Result<_, _>>()?;
        let Some((pattern, values)) = texts.split_first() else {
            return exec_err!("format takes a text");
        };
        let pattern = pattern.as_string::<i32>();
        let rows = (0..pattern.len()).map(|row| {
            let value = |array: &ArrayRef| {
                let array = array.as_string::<i32>();
                array.is_valid(row).then(|| array.value(row).to_owned())
            };
            let values: Vec<_> = values.iter().map(value).collect();
            pattern.is_valid(row).then(|| formatted(pattern.value(row), &values)).transpose()
        });
        let rows: StringArray = rows.collect::<DataFusionResult<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(rows)))
    }
}

fn formatted(pattern: &str, values: &[Option<String>]) -> DataFusionResult<String> {
    let (mut out, mut values) = (String::with_capacity(pattern.len()), values.iter());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let kind = characters.next();
        if kind == Some('%') {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            return exec_err!("too few arguments for format()");
        };
        match (kind, value) {
            (Some('s'), value) => out.push_str(value.as_deref().unwrap_or_default()),
            (Some('I'), Some(name)) => out.push_str(&identifier(name)),
            (Some('L'), Some(text)) => out.push_str(&format!("'{}'", text.replace('\'', "''"))),
            (Some('L'), None) => out.push_str("NULL"),
            _ => return exec_err!("format() takes %s, %I, %L and %%"),
        }
    }
    Ok(out)
}

/// Quotes a name where it has to be.
fn identifier(name: &str) -> String {
    let plain = |(at, c): (usize, char)| {
        c == '_' || c.is_ascii_lowercase() || (at > 0 && c.is_ascii_digit())
    };
    match !name.is_empty() && name.chars().enumerate().all(plain) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}
