//! Other databases on this machine, with the same versions: MariaDB with its system-versioned,
//! application-time table, and PostgreSQL with ranges under a GiST index. `scripts/setup bench`
//! installs them; prepared statements are run by sysbench over a Unix socket. XTDB 1 over RocksDB
//! reads in its own process, without a wire.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// How long a read is repeated.
const SECONDS: f64 = 5.0;

/// Where a peer's files are.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers").join(name)
}

/// Runs a command to its end.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}\n{text}\n{complaint}");
    text
}

/// A database process and its socket; ends when dropped.
pub struct Peer {
    pub name: &'static str,
    driver: Driver,
    child: Child,
    dir: tempfile::TempDir,
}

#[derive(Clone, Copy, PartialEq)]
enum Driver {
    MariaDb,
    Postgres,
}

impl Peer {
    /// Starts MariaDB with a table of readings.
    pub fn mariadb() -> Self {
        let dir = open_directory("mysql");
        let data = dir.path().join("data");
        run(Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=mysql", "--skip-test-db"])
            .arg("--auth-root-authentication-method=normal")
            .arg(format!("--datadir={}", data.display())));
        let child = Command::new("mariadbd")
            .args(["--no-defaults", "--user=mysql", "--skip-networking", "--local-infile=1"])
            .args([
                "--innodb-buffer-pool-size=2G",
                "--innodb-log-file-size=1G",
                "--default-time-zone=+00:00",
            ])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", dir.path().join("socket").display()))
            .arg(format!("--pid-file={}", dir.path().join("pid").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peer = Self { name: "MariaDB 10.11", driver: Driver::MariaDb, child, dir };
        peer.wait("SELECT 1");
        peer.sql("CREATE DATABASE bench");
        peer.file(&script("mariadb.sql"));
        peer
    }

    /// Starts PostgreSQL with a table of readings.
    pub fn postgres() -> Self {
        let dir = open_directory("postgres");
        let data = dir.path().join("data");
        run(Command::new("runuser")
            .args(["-u", "postgres", "--", &format!("{POSTGRES}/initdb"), "-D"])
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]));
        let child = Command::new("runuser")
            .args(["-u", "postgres", "--", &format!("{POSTGRES}/postgres"), "-D"])
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=2GB", "-c", "max_wal_size=8GB"])
            .arg("-k")
            .arg(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peer = Self { name: "PostgreSQL 15", driver: Driver::Postgres, child, dir };
        peer.wait("SELECT 1");
        peer.file(&script("postgres.sql"));
        peer
    }

    fn client(&self) -> Command {
        match self.driver {
            Driver::MariaDb => {
                let mut client = Command::new("mariadb");
                client.arg("--no-defaults").arg("--user=root").arg("--local-infile=1");
                client.arg(format!("--socket={}", self.dir.path().join("socket").display()));
                client
            }
            Driver::Postgres => {
                let mut client = Command::new("psql");
                client.args(["-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-h"]);
                client.arg(self.dir.path());
                client
            }
        }
    }

    fn wait(&self, sql: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let flag = if self.driver == Driver::MariaDb { "-e" } else { "-c" };
        while !self.client().args([flag, sql]).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "{} did not start", self.name);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Tells which of the two dialects it speaks.
    pub fn is_mariadb(&self) -> bool {
        self.driver == Driver::MariaDb
    }

    /// Returns the rows of a query as texts, by the database's own client.
    pub fn answer(&self, sql: &str) -> Vec<Vec<String>> {
        let text = match self.driver {
            Driver::MariaDb => run(self.client().args(["bench", "-N", "-B", "-e", sql])),
            Driver::Postgres => run(self.client().args(["-A", "-t", "-F", "\t", "-c", sql])),
        };
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Runs a statement.
    pub fn sql(&self, sql: &str) {
        match self.driver {
            Driver::MariaDb if sql.starts_with("CREATE DATABASE") => {
                run(self.client().args(["-e", sql]))
            }
            Driver::MariaDb => run(self.client().args(["bench", "-e", sql])),
            Driver::Postgres => run(self.client().args(["-c", sql])),
        };
    }

    fn file(&self, path: &Path) {
        self.sql(&fs::read_to_string(path).unwrap());
    }

    /// Loads versions in the fastest way there is; returns its seconds.
    pub fn load(&self, versions: impl Iterator<Item = Loaded>) -> f64 {
        let file = self.dir.path().join("versions.tsv");
        let mut out = BufWriter::new(fs::File::create(&file).unwrap());
        for version in versions {
            let Loaded { id, site, n, note, valid, sys } = version;
            match self.driver {
                Driver::MariaDb => writeln!(
                    out,
                    "{id}\t{site}\t{n}\t{note}\t{}\t{}\t{}\t{}",
                    valid.0,
                    valid.1.as_deref().unwrap_or("9999-12-31"),
                    sys.0,
                    sys.1.as_deref().unwrap_or("2038-01-19 03:14:07.999999"),
                ),
                Driver::Postgres => writeln!(
                    out,
                    "{id}\t{site}\t{n}\t{note}\t[{}+00,{})\t[{}+00,{})",
                    valid.0,
                    valid.1.map_or_else(|| "infinity".to_owned(), |to| to + "+00"),
                    sys.0,
                    sys.1.map_or_else(|| "infinity".to_owned(), |to| to + "+00"),
                ),
            }
            .unwrap();
        }
        out.into_inner().unwrap();
        let started = Instant::now();
        match self.driver {
            Driver::MariaDb => self.sql(&format!(
                "SET @@system_versioning_insert_history=1; LOAD DATA LOCAL INFILE '{}' INTO TABLE \
                 readings (id, site, n, note, valid_from, valid_to, sys_from, sys_to)",
                file.display()
            )),
            Driver::Postgres => self.sql(&format!("\\copy readings FROM '{}'", file.display())),
        }
        let seconds = started.elapsed().as_secs_f64();
        self.sql(match self.driver {
            Driver::MariaDb => "ANALYZE TABLE readings",
            Driver::Postgres => "VACUUM ANALYZE readings",
        });
        fs::remove_file(file).unwrap();
        seconds
    }

    /// Makes the best index for reads by key; MariaDB has it from the start.
    pub fn index(&self) {
        if self.driver == Driver::Postgres {
            self.sql("CREATE INDEX ON readings USING gist (id, valid, sys)");
            self.sql("VACUUM ANALYZE readings");
        }
    }

    /// Runs one prepared read for some seconds; returns the mean microseconds of one.
    pub fn read(&self, mode: &str, at: &str, keys: i64, versions: i64) -> f64 {
        let mut command = Command::new("sysbench");
        command.arg(script("read.lua"));
        match self.driver {
            Driver::MariaDb => {
                command.args(["--db-driver=mysql", "--mysql-user=root", "--mysql-db=bench"]);
                command.arg(format!("--mysql-socket={}", self.dir.path().join("socket").display()));
            }
            Driver::Postgres => {
                command.args(["--db-driver=pgsql", "--pgsql-user=postgres", "--pgsql-db=postgres"]);
                command.arg(format!("--pgsql-host={}", self.dir.path().display()));
            }
        }
        command.args(["--threads=1", &format!("--time={SECONDS}")]);
        command.arg(format!("--mode={mode}")).arg(format!("--at={at}"));
        command.arg(format!("--keys={keys}")).arg(format!("--versions={versions}"));
        // The first run warms up.
        run(command.arg("run"));
        let printed = run(&mut command);
        let total = printed.lines().find(|line| line.trim().starts_with("total number of events"));
        let events: f64 = total
            .and_then(|line| line.rsplit(' ').next())
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or_default();
        assert!(events > 100.0, "{printed}");
        SECONDS * 1e6 / events
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Loads XTDB 1 and reads from it; returns the mean microseconds of a point read, now and as of a
/// past system time.
pub fn xtdb_reads(keys: i64, versions: i64) -> [f64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let jars = everwhen_tests::cache_dir().join("xtdb/lib/*");
    let mut command = Command::new("java");
    command.args(["-Xmx4g", "-cp"]).arg(jars).arg(script("xtdb/PointReads.java")).arg(dir.path());
    let printed = run(command.args([keys.to_string(), versions.to_string(), SECONDS.to_string()]));
    ["now ", "past "].map(|when| {
        let micros = printed.lines().find_map(|line| line.strip_prefix(when)?.parse().ok());
        micros.unwrap_or_else(|| panic!("{printed}"))
    })
}

/// One row of the peers' tables; ends are open where there is none.
pub struct Loaded {
    pub id: String,
    pub site: String,
    pub n: i64,
    pub note: String,
    pub valid: (String, Option<String>),
    pub sys: (String, Option<String>),
}

/// Makes a directory that a peer's user owns.
fn open_directory(user: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("chown").arg(user).arg(dir.path()));
    dir
}
