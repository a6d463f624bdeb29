//! `everwhen demo`.

/// The demo takes no options yet.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Plays the demo.
///
/// # Errors
/// Until it is built.
pub async fn run(_arguments: Arguments) -> anyhow::Result<()> {
    anyhow::bail!("the demo is not built yet")
}
