//! The program as its users run it: server and projector processes, their addresses, their end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::Client;

/// Returns the program under test, built by `make test` beside this test binary.
pub fn program() -> Result<PathBuf> {
    let test_binary = std::env::current_exe()?;
    for dir in test_binary.ancestors().skip(1).take(3) {
        let candidate = dir.join("everwhen");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("the program is not built: cargo build --bin everwhen")
}

/// What a command that ended had to say.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    pub out: String,
    pub err: String,
}

/// Runs `everwhen` with these arguments to its end.
pub fn run(args: &[&str]) -> Result<Said> {
    run_with_env(args, &[])
}

/// The same with further environment variables.
pub fn run_with_env(args: &[&str], env: &[(&str, &str)]) -> Result<Said> {
    let mut command = Command::new(program()?);
    command.args(args).envs(env.iter().copied());
    let output = command.stdin(Stdio::null()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (out, err) = (text(output.stdout), text(output.stderr));
    Ok(Said { success: output.status.success(), out, err })
}

/// A child process that is killed when dropped; its stderr goes to a file.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `everwhen` with these arguments; stdout and stderr go to `log`.
    pub fn start(args: &[String], log: &Path) -> Result<Self> {
        Self::start_with_env(args, log, &[])
    }

    /// The same with further environment variables.
    pub fn start_with_env(args: &[String], log: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(program()?);
        command.args(args);
        Self::spawn(command, log, env)
    }

    /// The same within so many KiB of address space, as `ulimit -v` sets it.
    pub fn start_within(args: &[String], log: &Path, address_space_kib: u64) -> Result<Self> {
        let mut command = Command::new("sh");
        let script = format!("ulimit -v {address_space_kib} && exec \"$@\"");
        command.args(["-c", &script, "sh"]).arg(program()?).args(args);
        Self::spawn(command, log, &[])
    }

    fn spawn(mut command: Command, log: &Path, env: &[(&str, &str)]) -> Result<Self> {
        let out = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .env("RUST_BACKTRACE", "1")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::from(out.try_clone()?))
            .stderr(Stdio::from(out))
            .spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Returns the process' id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the process to end with SIGTERM and waits.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        self.wait(patience)
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the process did not end within {patience:?}; its log:\n{}", self.log_text())
    }

    /// True while the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns what the process has printed so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A server process over a data directory.
pub struct Server {
    process: Process,
    pub data: PathBuf,
    pub http: String,
    pub grpc: String,
    /// `HOST:PORT`.
    pub postgres: String,
    pub admin: String,
    pub client: Client,
}

impl Server {
    /// Returns the id of the server's process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Starts a server on free ports and waits until it is ready. `test_clock` is RFC 3339.
    pub async fn start(data: &Path, test_clock: Option<&str>) -> Result<Self> {
        Self::start_with(data, test_clock, &[]).await
    }

    /// The same with further arguments.
    pub async fn start_with(data: &Path, test_clock: Option<&str>, more: &[&str]) -> Result<Self> {
        Self::start_with_env(data, test_clock, more, &[]).await
    }

    /// The same with failpoints armed: `name=abort`.
    pub async fn start_failing(
        data: &Path,
        test_clock: Option<&str>,
        more: &[&str],
        failpoints: Option<&str>,
    ) -> Result<Self> {
        let armed: Vec<(&str, &str)> =
            failpoints.map(|armed| ("EVERWHEN_FAILPOINTS", armed)).into_iter().collect();
        Self::start_with_env(data, test_clock, more, &armed).await
    }

    /// The same with further environment variables.
    pub async fn start_with_env(
        data: &Path,
        test_clock: Option<&str>,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let args = serve_arguments(data, test_clock, more)?;
        let log = data.with_extension("server.log");
        Self::ready(data, Process::start_with_env(&args, &log, env)?).await
    }

    /// The same within so many KiB of address space, as `ulimit -v` sets it.
    pub async fn start_within(
        data: &Path,
        test_clock: Option<&str>,
        more: &[&str],
        address_space_kib: u64,
    ) -> Result<Self> {
        let args = serve_arguments(data, test_clock, more)?;
        let log = data.with_extension("server.log");
        Self::ready(data, Process::start_within(&args, &log, address_space_kib)?).await
    }

    async fn ready(data: &Path, mut process: Process) -> Result<Self> {
        let endpoints = wait_for_endpoints(&mut process, &endpoints_file(data)).await?;
        let address = |name: &str| endpoints[name].as_str().unwrap_or_default().to_owned();
        let http = address("http");
        Ok(Self {
            process,
            data: data.to_owned(),
            client: Client::new(&http),
            grpc: address("grpc"),
            postgres: address("postgres"),
            admin: address("admin"),
            http,
        })
    }

    /// Ends the server with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Returns the most memory that the server has held so far, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.context("no VmHWM in the status of the process")? << 10)
    }

    /// Begins the measurement of [`Self::peak_memory`] anew.
    pub fn reset_peak_memory(&self) -> Result<()> {
        // proc_pid_clear_refs(5): 5 sets the peak to what is held now.
        Ok(fs::write(format!("/proc/{}/clear_refs", self.process.child.id()), "5")?)
    }

    /// True while the server has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits until the server has ended by itself.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        self.process.wait(Duration::from_secs(60))
    }

    /// Ends the server with SIGTERM and expects exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.terminate(Duration::from_secs(30))?;
        if !status.success() {
            bail!("the server ended with {status}:\n{}", self.process.log_text());
        }
        Ok(())
    }

    /// Returns what the server has logged.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }
}

fn endpoints_file(data: &Path) -> PathBuf {
    data.join("endpoints.json")
}

/// Makes the data directory, takes what a killed server left of its addresses, and returns arguments
/// for a server on free ports.
fn serve_arguments(data: &Path, test_clock: Option<&str>, more: &[&str]) -> Result<Vec<String>> {
    fs::create_dir_all(data)?;
    fs::remove_file(endpoints_file(data)).ok();
    let mut args: Vec<String> = vec!["serve".into(), "--data".into(), data.display().to_string()];
    for listener in ["http", "grpc", "postgres", "admin"] {
        args.push(format!("--{listener}-listen"));
        args.push("127.0.0.1:0".into());
    }
    if let Some(at) = test_clock {
        args.push("--test-clock".into());
        args.push(at.into());
    }
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    Ok(args)
}

async fn wait_for_endpoints(process: &mut Process, file: &Path) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Ok(text) = fs::read_to_string(file)
            && let Ok(endpoints) = serde_json::from_str(&text)
        {
            return Ok(endpoints);
        }
        if !process.is_running() {
            bail!("the server ended before it was ready:\n{}", process.log_text());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the server was not ready within 60 s:\n{}", process.log_text())
}

/// Starts a delivery process for a server with a configuration text, written beside the log.
pub fn start_projector(grpc: &str, config: &str, dir: &Path, name: &str) -> Result<Process> {
    fs::create_dir_all(dir)?;
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, config).context("writing the projector's configuration")?;
    let args: Vec<String> =
        ["projector", "--server", grpc, "--config", &file.display().to_string()]
            .map(ToOwned::to_owned)
            .to_vec();
    Process::start(&args, &dir.join(format!("{name}.log")))
}
