// Loads the versions of tests/bench/remote.rs into XTDB 1 over RocksDB, in this process, and reads
// single ones: prints `now MICROS` and `past MICROS`, the mean of one read.
//
// java -cp LIB/* PointReads.java DIRECTORY KEYS VERSIONS SECONDS

import java.io.File;
import java.nio.file.Files;
import java.time.Duration;
import java.time.Instant;
import java.util.Date;
import java.util.Map;
import java.util.Random;
import xtdb.api.IXtdb;
import xtdb.api.TransactionInstant;
import xtdb.api.XtdbDocument;
import xtdb.api.tx.Transaction;

public class PointReads {
    static final Instant FIRST_DAY = Instant.parse("2025-01-01T00:00:00Z");
    static final int BATCH = 1_000;

    public static void main(String[] arguments) throws Exception {
        File directory = new File(arguments[0]);
        int keys = Integer.parseInt(arguments[1]);
        int versions = Integer.parseInt(arguments[2]);
        double seconds = Double.parseDouble(arguments[3]);
        try (IXtdb node = IXtdb.startNode(configuration(directory))) {
            Date[] recorded = load(node, keys, versions);
            Random random = new Random(5);
            for (String when : new String[] {"now", "past"}) {
                // Half of the versions are superseded since.
                Date known = when.equals("now") ? null : recorded[versions / 2];
                measure(node, known, keys, versions, seconds, random);
                double micros = measure(node, known, keys, versions, seconds, random);
                System.out.println(when + " " + micros);
            }
        }
    }

    /** Everything in RocksDB, with a block cache that holds all of it. */
    static File configuration(File directory) throws Exception {
        StringBuilder all = new StringBuilder("{");
        for (String store : new String[] {"index-store", "document-store", "tx-log"}) {
            all.append(all.length() > 1 ? "," : "").append("\"xtdb/").append(store)
                .append("\":{\"kv-store\":{\"xtdb/module\":\"xtdb.rocksdb/->kv-store\",\"db-dir\":\"")
                .append(new File(directory, store)).append("\",\"block-cache\":{\"xtdb/module\":")
                .append("\"xtdb.rocksdb/->lru-block-cache\",\"cache-size\":536870912}}}");
        }
        File file = new File(directory, "configuration.json");
        Files.writeString(file.toPath(), all.append("}").toString());
        return file;
    }

    static String key(int id) {
        return String.format("key-%08d", id);
    }

    static Date day(int version) {
        return Date.from(FIRST_DAY.plus(Duration.ofDays(version)));
    }

    /** Writes version after version of all keys; returns when each of them was recorded. */
    static Date[] load(IXtdb node, int keys, int versions) {
        Date[] recorded = new Date[versions];
        for (int round = 0; round < versions; round++) {
            int version = round;
            TransactionInstant last = null;
            for (int start = 0; start < keys; start += BATCH) {
                int first = start;
                last = node.submitTx(Transaction.buildTx(tx -> {
                    for (int id = first; id < Math.min(first + BATCH, keys); id++) {
                        String note = "note " + version + " of " + id + ", forty characters or so";
                        Map<String, Object> fields = Map.of(
                            "site", "site " + id % 97, "n", (long) id * 10 + version, "note", note);
                        tx.put(XtdbDocument.create(key(id), fields), day(version));
                    }
                }));
            }
            recorded[version] = node.awaitTx(last, Duration.ofMinutes(10)).getTime();
        }
        return recorded;
    }

    static double measure(
            IXtdb node, Date known, int keys, int versions, double seconds, Random random)
            throws Exception {
        long start = System.nanoTime();
        int reads = 0;
        while (System.nanoTime() - start < seconds * 1e9) {
            Date at = new Date(day(random.nextInt(versions)).getTime() + 43_200_000L);
            String key = key(random.nextInt(keys));
            XtdbDocument found =
                (known == null ? node.db(at) : node.db(at, known)).entity(key);
            if (found == null || found.get("note") == null) {
                throw new IllegalStateException("nothing of " + key + " at " + at);
            }
            reads++;
        }
        return (System.nanoTime() - start) / 1e3 / reads;
    }
}
