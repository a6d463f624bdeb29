//! What the server says of itself: its abilities and its types.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    CommandGetSqlInfo, CommandGetXdbcTypeInfo, Nullable, Searchable, SqlInfo,
    SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
};

use super::catalog::internal;
use crate::failure::{Answered, Failure};

/// Arrow's own version, as the crates name it.
const ARROW_VERSION: &str = "59";

/// What [`SqlInfo`] asks, answered.
pub fn sql_info(command: CommandGetSqlInfo) -> Answered<RecordBatch> {
    static INFO: LazyLock<Option<SqlInfoData>> = LazyLock::new(|| build_info().ok());
    let info = INFO.as_ref().ok_or_else(|| Failure::internal(&"the SQL info cannot be built"))?;
    command.into_builder(info).build().map_err(internal)
}

fn build_info() -> arrow_flight::error::Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Everwhen");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, false);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    // There are some, of writes alone. Drivers told so would put everything into one, by default.
    let transactions = i32::from(SqlSupportedTransaction::None);
    info.append(SqlInfo::FlightSqlServerTransaction, transactions);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, true);
    let lower = i32::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase);
    info.append(SqlInfo::SqlIdentifierCase, lower);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    let exact = i32::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown);
    info.append(SqlInfo::SqlQuotedIdentifierCase, exact);
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "tenant");
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.build()
}

/// The types that columns can have.
pub fn type_info(command: CommandGetXdbcTypeInfo) -> Answered<RecordBatch> {
    static INFO: LazyLock<Option<XdbcTypeInfoData>> = LazyLock::new(|| build_types().ok());
    let info = INFO.as_ref().ok_or_else(|| Failure::internal(&"the types cannot be built"))?;
    command.into_builder(info).build().map_err(internal)
}

fn build_types() -> arrow_flight::error::Result<XdbcTypeInfoData> {
    use XdbcDataType as Xdbc;
    let types: [(&str, Xdbc, Option<i32>, &str); 10] = [
        ("BOOLEAN", Xdbc::XdbcBit, Some(1), ""),
        ("BIGINT", Xdbc::XdbcBigint, Some(19), ""),
        ("DOUBLE", Xdbc::XdbcDouble, Some(53), ""),
        ("DECIMAL", Xdbc::XdbcDecimal, Some(38), ""),
        ("TEXT", Xdbc::XdbcVarchar, None, "'"),
        ("JSON", Xdbc::XdbcVarchar, None, "'"),
        ("BYTEA", Xdbc::XdbcVarbinary, None, "X'"),
        ("DATE", Xdbc::XdbcDate, Some(10), "DATE '"),
        ("TIME", Xdbc::XdbcTime, Some(15), "TIME '"),
        ("TIMESTAMPTZ", Xdbc::XdbcTimestamp, Some(27), "TIMESTAMP '"),
    ];
    let mut all = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, column_size, prefix) in types {
        all.append(XdbcTypeInfo {
            type_name: name.to_owned(),
            data_type,
            column_size,
            literal_prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            literal_suffix: (!prefix.is_empty()).then(|| "'".to_owned()),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: matches!(name, "TEXT" | "JSON"),
            searchable: Searchable::Full,
            unsigned_attribute: Some(false),
            sql_data_type: data_type,
            ..XdbcTypeInfo::default()
        });
    }
    all.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_what_it_can() {
        let all = sql_info(CommandGetSqlInfo { info: Vec::new() }).unwrap();
        assert!(all.num_rows() > 20);
        let cancel = u32::try_from(i32::from(SqlInfo::FlightSqlServerCancel)).unwrap();
        let one = CommandGetSqlInfo { info: vec![cancel] };
        assert_eq!(sql_info(one).unwrap().num_rows(), 1);
    }

    #[test]
    fn every_type_is_told() {
        let all = type_info(CommandGetXdbcTypeInfo { data_type: None }).unwrap();
        assert_eq!(all.num_rows(), 10);
    }
}
