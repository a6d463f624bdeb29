//! The prompt: statements of several lines, history, completion, and commands that begin with `\\`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use rustyline::Editor;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;

use super::complete::Names;
use super::session::Session;
use super::{commands, split};
use crate::cli::complain;

type Line = Editor<Names, FileHistory>;

/// Reads and runs statements until the end of input.
///
/// # Errors
/// Where the terminal cannot be read. Statements that fail are told and do not end it.
pub(super) async fn run(mut session: Session, url: &str) -> anyhow::Result<()> {
    let mut editor: Line = Editor::new()?;
    editor.set_helper(Some(Names::of(&session.client).await));
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    println!("Everwhen at {url}. \\? helps, \\q ends.");
    let mut pending = String::new();
    loop {
        let mark = if pending.is_empty() { "everwhen> " } else { "     ...> " };
        match editor.readline(mark) {
            Ok(line) if line.trim_start().starts_with('\\') => {
                let _ = editor.add_history_entry(line.trim());
                if command(&mut session, &mut editor, &mut pending, line.trim()).await.is_break() {
                    break;
                }
            }
            Ok(line) => {
                pending.push_str(&line);
                pending.push('\n');
                run_ended(&mut session, &mut editor, &mut pending).await;
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(file) = &history {
        let _ = editor.save_history(file);
    }
    Ok(())
}

async fn command(
    session: &mut Session,
    editor: &mut Line,
    pending: &mut String,
    line: &str,
) -> ControlFlow<()> {
    if line == "\\e" {
        let text =
            if pending.trim().is_empty() { format!("{};", session.last) } else { pending.clone() };
        match commands::edited(&text) {
            Ok(text) => {
                print!("{text}");
                *pending = text;
                run_ended(session, editor, pending).await;
            }
            Err(error) => {
                complain(&error);
            }
        }
        return ControlFlow::Continue(());
    }
    match commands::run(session, line).await {
        Ok(flow) => flow,
        Err(error) => {
            complain(&error);
            ControlFlow::Continue(())
        }
    }
}

/// Runs what is pending once it ends with a semicolon.
async fn run_ended(session: &mut Session, editor: &mut Line, pending: &mut String) {
    let pieces = split::statements(pending);
    if pieces.is_empty() || pieces.iter().any(|piece| !piece.ended) {
        return;
    }
    let text = std::mem::take(pending);
    let _ = editor.add_history_entry(text.trim());
    let mut defines = false;
    for piece in split::statements(&text) {
        if let Err(error) = session.run(piece.text).await {
            complain(&error);
        }
        defines |= !split::reads(piece.text);
    }
    if defines {
        editor.set_helper(Some(Names::of(&session.client).await));
    }
}

fn history_file() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os("HOME")?).join(".everwhen_history"))
}
