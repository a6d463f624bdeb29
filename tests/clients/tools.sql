-- What database tools ask of Postgres when they connect and browse, in their own words where it
-- matters and laid out anew. A line "-- NAME: what" begins a statement; {boats} is the number of the
-- table in pg_class, {public} that of the schema.

-- dbeaver: session
SET extra_float_digits = 3;

-- dbeaver: name
SET application_name = 'DBeaver 24.2.0 - Main <boats>';

-- dbeaver: version
SELECT version();

-- dbeaver: where am I
SELECT current_schema(), session_user;

-- dbeaver: search path
SHOW search_path;

-- dbeaver: database
SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datname = 'tools';

-- dbeaver: databases
SELECT db.oid, db.* FROM pg_catalog.pg_database db
WHERE datallowconn AND NOT datistemplate ORDER BY db.datname;

-- dbeaver: settings
SELECT * FROM pg_catalog.pg_settings WHERE name = 'standard_conforming_strings';

-- dbeaver: words
SELECT string_agg(word, ',') FROM pg_catalog.pg_get_keywords()
WHERE word <> ALL ('{a,abs,absolute,action,ada,add,admin,after,all}'::text[]);

-- dbeaver: schemas
SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n
LEFT OUTER JOIN pg_catalog.pg_description d
ON d.objoid = n.oid AND d.objsubid = 0 AND d.classoid = 'pg_namespace'::regclass ORDER BY nspname;

-- dbeaver: types
SELECT t.oid, t.*, c.relkind, format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base_type_name,
d.description FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid = t.typelem
LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid = d.objoid
WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c')
AND (et.typcategory IS NULL OR et.typcategory <> 'C');

-- dbeaver: type by number
SELECT t.oid, t.* FROM pg_catalog.pg_type t WHERE t.oid = 1184;

-- dbeaver: enums
SELECT e.* FROM pg_catalog.pg_enum e ORDER BY e.enumsortorder;

-- dbeaver: tables
SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_expr,
pg_catalog.pg_get_partkeydef(c.oid) AS partition_key FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d
ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass
WHERE c.relnamespace = {public} AND c.relkind NOT IN ('i', 'I', 'c');

-- dbeaver: columns
SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def_value,
dsc.description, dep.objid FROM pg_catalog.pg_attribute a
INNER JOIN pg_catalog.pg_class c ON (a.attrelid = c.oid)
LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid = ad.adrelid AND a.attnum = ad.adnum)
LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid)
LEFT OUTER JOIN pg_depend dep ON dep.refobjid = a.attrelid AND dep.deptype = 'i'
AND dep.refobjsubid = a.attnum AND dep.classid = dep.refclassid
WHERE NOT a.attisdropped AND c.relkind NOT IN ('i', 'I', 'c') AND c.oid = {boats} ORDER BY a.attnum;

-- dbeaver: constraints
SELECT c.oid, c.*, t.relname AS tabrelname, rt.relnamespace AS refnamespace, d.description,
NULL AS consrc_copy FROM pg_catalog.pg_constraint c
INNER JOIN pg_catalog.pg_class t ON t.oid = c.conrelid
LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid = c.confrelid
LEFT OUTER JOIN pg_catalog.pg_description d
ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_constraint'::regclass
WHERE c.conrelid = {boats} ORDER BY c.oid;

-- dbeaver: references
SELECT DISTINCT dep.deptype, dep.classid, dep.objid, cl.relkind, attr.attname
FROM pg_depend dep LEFT JOIN pg_class cl ON dep.objid = cl.oid
LEFT JOIN pg_attribute attr ON attr.attrelid = dep.objid AND attr.attnum = dep.objsubid
WHERE dep.refobjid = {boats};

-- dbeaver: indexes
SELECT i.*, i.indkey AS keys, c.relname, c.relnamespace, c.relam, c.reltablespace,
tc.relname AS tabrelname, dsc.description,
pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS pred_expr,
pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) AS expr,
pg_catalog.pg_relation_size(i.indexrelid) AS index_rel_size,
pg_catalog.pg_stat_get_numscans(i.indexrelid) AS index_num_scans
FROM pg_catalog.pg_index i INNER JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
INNER JOIN pg_catalog.pg_class tc ON tc.oid = i.indrelid
LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid = dsc.objoid
WHERE i.indrelid = {boats} ORDER BY tabrelname, c.relname;

-- dbeaver: functions
SELECT p.oid, p.*, pg_catalog.pg_get_expr(p.proargdefaults, 0) AS arg_defaults, d.description
FROM pg_catalog.pg_proc p LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = p.oid
WHERE p.pronamespace = {public} ORDER BY p.proname;

-- dbeaver: roles
SELECT a.oid, a.*, pd.description FROM pg_catalog.pg_roles a
LEFT JOIN pg_catalog.pg_shdescription pd ON a.oid = pd.objoid ORDER BY a.rolname;

-- dbeaver: sequences
SELECT c.oid, c.*, d.description FROM pg_catalog.pg_class c
LEFT OUTER JOIN pg_catalog.pg_description d
ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_class'::regclass
WHERE c.relnamespace = {public} AND c.relkind = 'S';

-- dbeaver: sizes
SELECT c.oid, pg_catalog.pg_total_relation_size(c.oid) AS total_rel_size,
pg_catalog.pg_relation_size(c.oid) AS rel_size FROM pg_class c WHERE c.relnamespace = {public};

-- dbeaver: sessions
SELECT sa.* FROM pg_catalog.pg_stat_activity sa;

-- grafana: ping
SELECT 1;

-- grafana: version
SELECT current_setting('server_version_num')::int/100 AS version;

-- grafana: timescale
SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';

-- grafana: schemas
SELECT schema_name AS "name" FROM information_schema.schemata
WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast', '_timescaledb_cache')
ORDER BY schema_name;

-- grafana: tables
SELECT quote_ident(table_name) AS "table" FROM information_schema.tables
WHERE quote_ident(table_schema) = 'public' ORDER BY 1;

-- grafana: tables by search path
SELECT CASE WHEN quote_ident(table_schema) IN (
SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
FROM generate_series(array_lower(string_to_array(current_setting('search_path'), ','), 1),
array_upper(string_to_array(current_setting('search_path'), ','), 1)) AS i,
string_to_array(current_setting('search_path'), ',') s)
THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
FROM information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog')
ORDER BY 1;

-- grafana: columns
SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
WHERE CASE WHEN array_length(parse_ident('boats'), 1) = 2
THEN quote_ident(table_schema) = (parse_ident('boats'))[1]
AND quote_ident(table_name) = (parse_ident('boats'))[2]
ELSE quote_ident(table_name) = 'boats' AND quote_ident(table_schema) IN (
SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
FROM generate_series(array_lower(string_to_array(current_setting('search_path'), ','), 1),
array_upper(string_to_array(current_setting('search_path'), ','), 1)) AS i,
string_to_array(current_setting('search_path'), ',') s) END;

-- grafana: a panel
SELECT date_bin('1 hour', at, TIMESTAMPTZ '2001-01-01') AS "time", avg(length) AS value FROM boats
WHERE at BETWEEN '2026-01-01T00:00:00Z' AND '2026-12-01T00:00:00Z' GROUP BY 1 ORDER BY 1;

-- metabase: zone
SHOW timezone;

-- metabase: enums
SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum e);

-- metabase: schemas
SELECT nspname AS "TABLE_SCHEM", current_database() AS "TABLE_CATALOG" FROM pg_catalog.pg_namespace
WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_'
OR nspname = (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_'
OR nspname = replace((pg_catalog.current_schemas(true))[1], 'pg_temp_', 'pg_toast_temp_'))
ORDER BY "TABLE_SCHEM";

-- metabase: tables
SELECT "n"."nspname" AS "schema", "c"."relname" AS "name", CASE "c"."relkind" WHEN 'r' THEN 'TABLE'
WHEN 'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS "type", "d"."description" AS "description",
"stat"."n_live_tup" AS "estimated_row_count" FROM "pg_catalog"."pg_class" AS "c"
INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "c"."relnamespace" = "n"."oid"
LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" = "d"."objoid")
AND ("d"."objsubid" = 0) AND ("d"."classoid" = 'pg_class'::regclass)
LEFT JOIN "pg_stat_user_tables" AS "stat" ON ("n"."nspname" = "stat"."schemaname")
AND ("c"."relname" = "stat"."relname")
WHERE ("c"."relnamespace" = "n"."oid") AND ("n"."nspname" !~ '^pg_')
AND ("n"."nspname" <> 'information_schema') AND c.relkind IN ('r', 'p', 'v', 'f', 'm')
AND ("n"."nspname" IN ('public')) ORDER BY "type" ASC, "schema" ASC, "name" ASC;

-- metabase: privileges
WITH table_privileges AS (SELECT NULL AS role, t.schemaname AS schema, t.objectname AS table,
pg_catalog.has_any_column_privilege(current_user, '"' || t.schemaname || '"."' || t.objectname || '"', 'update') AS update,
pg_catalog.has_any_column_privilege(current_user, '"' || t.schemaname || '"."' || t.objectname || '"', 'select') AS select,
pg_catalog.has_any_column_privilege(current_user, '"' || t.schemaname || '"."' || t.objectname || '"', 'insert') AS insert,
pg_catalog.has_table_privilege(current_user, '"' || t.schemaname || '"."' || t.objectname || '"', 'delete') AS delete
FROM (SELECT schemaname, tablename AS objectname FROM pg_catalog.pg_tables
UNION SELECT schemaname, viewname AS objectname FROM pg_catalog.pg_views
UNION SELECT schemaname, matviewname AS objectname FROM pg_catalog.pg_matviews) t
WHERE t.schemaname !~ '^pg_' AND t.schemaname <> 'information_schema'
AND pg_catalog.has_schema_privilege(current_user, t.schemaname, 'usage'))
SELECT t.* FROM table_privileges t WHERE t.select OR t.update OR t.insert OR t.delete;

-- metabase: fields
SELECT c.column_name AS "name", CASE WHEN c.udt_schema IN ('public', 'pg_catalog')
THEN format('%s', c.udt_name) ELSE format('"%s"."%s"', c.udt_schema, c.udt_name) END AS "database-type",
c.ordinal_position - 1 AS "database-position", c.table_schema AS "table-schema",
c.table_name AS "table-name", pk.column_name IS NOT NULL AS "pk?",
col_description(CAST(CAST(format('%I.%I', CAST(c.table_schema AS text), CAST(c.table_name AS text)) AS regclass) AS oid),
c.ordinal_position) AS "field-comment",
(column_default IS NULL OR lower(column_default) = 'null') AND is_nullable = 'NO'
AND NOT ((column_default IS NOT NULL AND column_default LIKE '%nextval(%') OR is_identity <> 'NO') AS "database-required"
FROM information_schema.columns AS c LEFT JOIN (SELECT tc.table_schema, tc.table_name, kc.column_name
FROM information_schema.table_constraints AS tc INNER JOIN information_schema.key_column_usage AS kc
ON tc.constraint_name = kc.constraint_name AND tc.table_schema = kc.table_schema
AND tc.table_name = kc.table_name WHERE tc.constraint_type = 'PRIMARY KEY') AS pk
ON c.table_schema = pk.table_schema AND c.table_name = pk.table_name AND c.column_name = pk.column_name
WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' AND c.table_schema IN ('public')
ORDER BY "table-schema", "table-name", "database-position";

-- metabase: fields of materialized views
SELECT pa.attname AS "name", pa.attnum - 1 AS "database-position", pn.nspname AS "table-schema",
pc.relname AS "table-name" FROM pg_catalog.pg_class AS pc
INNER JOIN pg_catalog.pg_namespace AS pn ON pn.oid = pc.relnamespace
INNER JOIN pg_catalog.pg_attribute AS pa ON pa.attrelid = pc.oid
INNER JOIN pg_catalog.pg_type AS pt ON pt.oid = pa.atttypid
INNER JOIN pg_catalog.pg_namespace AS ptn ON ptn.oid = pt.typnamespace
WHERE pc.relkind = 'm' AND pa.attnum >= 1;

-- metabase: foreign keys
SELECT fk_ns.nspname AS "fk-table-schema", fk_table.relname AS "fk-table-name",
fk_column.attname AS "fk-column-name", pk_ns.nspname AS "pk-table-schema",
pk_table.relname AS "pk-table-name", pk_column.attname AS "pk-column-name"
FROM pg_constraint AS c INNER JOIN pg_class AS fk_table ON c.conrelid = fk_table.oid
INNER JOIN pg_namespace AS fk_ns ON c.connamespace = fk_ns.oid
INNER JOIN pg_attribute AS fk_column ON c.conrelid = fk_column.attrelid
INNER JOIN pg_class AS pk_table ON c.confrelid = pk_table.oid
INNER JOIN pg_namespace AS pk_ns ON pk_table.relnamespace = pk_ns.oid
INNER JOIN pg_attribute AS pk_column ON c.confrelid = pk_column.attrelid
WHERE fk_ns.nspname !~ '^information_schema|catalog_history|pg_' AND c.contype = 'f'::char
AND fk_column.attnum = ANY(c.conkey) AND pk_column.attnum = ANY(c.confkey);

-- metabase: a question
SELECT DATE_TRUNC('month', "public"."boats"."at") AS "at", COUNT(*) AS "count",
SUM("public"."boats"."length") AS "sum" FROM "public"."boats"
WHERE "public"."boats"."at" >= timestamp with time zone '2026-01-01 00:00:00.000Z'
GROUP BY DATE_TRUNC('month', "public"."boats"."at") ORDER BY 1 ASC;

-- metabase: a sample
SELECT "public"."boats"."_id" AS "_id", SUBSTRING("public"."boats"."name", 1, 1234) AS "substring1"
FROM "public"."boats" LIMIT 10000;
