// node-postgres as people use it: parameters both ways, as of, transactions, errors.
const assert = require('node:assert');
const { Client } = require('pg');

async function main() {
  const c = new Client({ host: '127.0.0.1', port: process.env.PGPORT, user: 'ada', database: 'node' });
  await c.connect();
  await c.query('CREATE TABLE cars (_id TEXT PRIMARY KEY, n INT, f FLOAT, at TIMESTAMPTZ, j JSON, tags TEXT[], b BOOL, y BYTES)');
  const at = new Date('2026-01-05T10:30:00.123Z');
  const row = ['a', 5, 1.5, at, { x: [1, null] }, ['p', 'q r', null], true, Buffer.from([1, 255])];
  let answer = await c.query('INSERT INTO cars VALUES ($1, $2, $3, $4, $5, $6, $7, $8)', row);
  assert.deepStrictEqual([answer.command, answer.rowCount], ['INSERT', 1]);
  answer = await c.query('SELECT * FROM cars WHERE n = $1 AND at = $2', [5, at]);
  // int64 comes as text, as node-postgres gives every bigint.
  assert.deepStrictEqual(Object.values(answer.rows[0]), [row[0], '5', ...row.slice(2)]);
  answer = await c.query('SELECT n FROM cars FOR VALID_TIME AS OF $1', [new Date('2020-01-01')]);
  assert.strictEqual(answer.rows.length, 0);
  answer = await c.query('SELECT n FROM cars WHERE _id = ANY($1)', [['a', 'x']]);
  assert.strictEqual(answer.rows.length, 1);

  await c.query('BEGIN');
  await c.query('INSERT INTO cars (_id, n) VALUES ($1, $2)', ['b', 6]);
  await c.query('COMMIT');
  const count = (least) => c.query({ name: 'count', text: 'SELECT count(*) AS n FROM cars WHERE n > $1', values: [least] });
  assert.strictEqual((await count(0)).rows[0].n, '2');
  assert.strictEqual((await count(5)).rows[0].n, '1');
  answer = await c.query("INSERT INTO cars (_id) VALUES ('c'); INSERT INTO cars (_id) VALUES ('d'); SELECT 1 AS one");
  assert.deepStrictEqual(answer.map((one) => one.command), ['INSERT', 'INSERT', 'SELECT']);

  await assert.rejects(c.query('SELECT nope FROM cars'), (error) => error.code === '42703' && error.position === '8');
  await assert.rejects(c.query('SELECT * FROM cars WHERE n = $1', ['five']), (error) => error.code === '22P02');
  assert.strictEqual((await c.query('SELECT 1 AS one')).rows[0].one, '1');
  await c.end();
  console.log('node ok');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
