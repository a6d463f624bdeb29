// The JDBC driver as people use it: parameters, as of, batches, cursors, metadata, errors.

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.List;

public class JdbcClient {
  static void check(Object found, Object expected) {
    if (!found.equals(expected)) {
      throw new AssertionError("found " + found + ", expected " + expected);
    }
  }

  static List<String> column(ResultSet rows, String name) throws SQLException {
    List<String> values = new ArrayList<>();
    while (rows.next()) {
      values.add(rows.getString(name));
    }
    return values;
  }

  public static void main(String[] arguments) throws Exception {
    String url = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/jdbc?user=ada";
    try (Connection c = DriverManager.getConnection(url)) {
      try (Statement s = c.createStatement()) {
        s.execute("CREATE TABLE boats (_id TEXT PRIMARY KEY, n INT, f FLOAT, d DECIMAL, at TIMESTAMPTZ, b BOOL, y BYTES)");
      }
      OffsetDateTime at = OffsetDateTime.parse("2026-01-05T10:00:00Z");
      String insert = "INSERT INTO boats VALUES (?, ?, ?, ?, ?, ?, ?)";
      // Past the fifth time the driver prepares a statement by name and takes binary values.
      for (int n = 0; n < 8; n++) {
        try (PreparedStatement p = c.prepareStatement(insert)) {
          p.setString(1, "b" + n);
          p.setInt(2, n);
          p.setDouble(3, 1.5);
          p.setBigDecimal(4, new BigDecimal("12.345"));
          p.setObject(5, at);
          p.setBoolean(6, true);
          p.setBytes(7, new byte[] {1, -1});
          check(p.executeUpdate(), 1);
        }
      }
      String asOf = "SELECT * FROM boats FOR VALID_TIME AS OF ? WHERE n >= ? ORDER BY n";
      for (int n = 0; n < 8; n++) {
        try (PreparedStatement p = c.prepareStatement(asOf)) {
          p.setObject(1, OffsetDateTime.now());
          p.setInt(2, n);
          ResultSet rows = p.executeQuery();
          rows.next();
          check(rows.getString("_id"), "b" + n);
          check(rows.getLong("n"), (long) n);
          check(rows.getDouble("f"), 1.5);
          check(rows.getBigDecimal("d"), new BigDecimal("12.345"));
          check(rows.getObject("at", OffsetDateTime.class), at);
          check(rows.getBytes("y").length, 2);
          p.setObject(1, OffsetDateTime.parse("2020-01-01T00:00:00Z"));
          check(p.executeQuery().next(), false);
        }
      }

      c.setAutoCommit(false);
      try (PreparedStatement p = c.prepareStatement("INSERT INTO boats (_id, n) VALUES (?, ?)")) {
        for (int n = 0; n < 100; n++) {
          p.setString(1, "x" + n);
          p.setLong(2, n);
          p.addBatch();
        }
        check(p.executeBatch().length, 100);
      }
      c.rollback();
      try (Statement s = c.createStatement()) {
        s.executeUpdate("INSERT INTO boats (_id, n) VALUES ('y', 1)");
        s.executeUpdate("DELETE FROM boats WHERE _id = 'b0'");
      }
      c.commit();
      try (Statement s = c.createStatement()) {
        s.setFetchSize(3);
        check(column(s.executeQuery("SELECT _id FROM boats ORDER BY _id"), "_id").size(), 8);
      }
      c.commit();
      try (Statement s = c.createStatement()) {
        s.executeQuery("SELECT nope FROM boats");
        throw new AssertionError("not refused");
      } catch (SQLException error) {
        check(error.getSQLState(), "42703");
      }
      c.rollback();
      c.setAutoCommit(true);

      DatabaseMetaData about = c.getMetaData();
      check(column(about.getTables(null, "public", "boats", new String[] {"TABLE"}), "TABLE_NAME"), List.of("boats"));
      check(
          column(about.getColumns(null, "public", "boats", "%"), "TYPE_NAME"),
          List.of("text", "int8", "float8", "numeric", "timestamptz", "bool", "bytea"));
      check(column(about.getPrimaryKeys(null, "public", "boats"), "COLUMN_NAME"), List.of("_id"));
      System.out.println("jdbc ok");
    }
  }
}
