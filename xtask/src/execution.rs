//! Runs a program to its end: with a deadline, its output kept, and a failure that shows its last lines.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::interrupt;

/// How long the output of a program that ended may still be on its way.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often an unfinished program is looked after.
const PAUSE: Duration = Duration::from_millis(50);
/// How many lines of its output a failure shows.
const SHOWN_LINES: usize = 40;

/// A program about to run.
pub(crate) struct Execution<'a> {
    command: Command,
    limit: Duration,
    shown_lines: usize,
    input: Option<String>,
    on_line: &'a dyn Fn(&str),
    watch: &'a dyn Fn() -> Result<()>,
}

/// What a program said, and how it ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    /// Both outputs, line by line as they came.
    pub(crate) lines: Vec<String>,
}

enum Line {
    Stdout(String),
    Stderr(String),
}

impl<'a> Execution<'a> {
    /// A program that may run as long as `limit`, alone in its process group, without standard input.
    pub(crate) fn new(command: Command, limit: Duration) -> Self {
        Self { command, limit, shown_lines: SHOWN_LINES, input: None, on_line: &|_| {}, watch: &|| Ok(()) }
    }

    /// Secrets go in here: arguments can be seen by every user of the machine.
    pub(crate) fn input(mut self, input: impl Into<String>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Replaces the deadline.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Hears each line of output as it comes.
    pub(crate) fn on_line(mut self, on_line: &'a dyn Fn(&str)) -> Self {
        self.on_line = on_line;
        self
    }

    /// Shows all it said if it fails, not only the end.
    pub(crate) fn all_lines(mut self) -> Self {
        self.shown_lines = usize::MAX;
        self
    }

    /// Gives up as soon as `watch` has something to report.
    pub(crate) fn watched(mut self, watch: &'a dyn Fn() -> Result<()>) -> Self {
        self.watch = watch;
        self
    }

    /// Runs it and returns what it wrote to standard output.
    ///
    /// # Errors
    ///
    /// It could not start, took too long, or failed; then its last lines are in the message.
    pub(crate) fn run(self) -> Result<String> {
        let name = shown(&self.command);
        let shown_lines = self.shown_lines;
        let finished = self.finish()?;
        if !finished.status.success() {
            bail!("`{name}` failed ({})\n{}", finished.status, last_lines(&finished.lines, shown_lines));
        }
        Ok(finished.stdout)
    }

    /// Runs it to its end, whether good or bad.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        let name = shown(&self.command);
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = self.command.spawn().with_context(|| format!("failed to start `{name}`"))?;
        let output = self.listen(&mut child);
        let mut lines = Vec::new();
        let mut stdout = String::new();
        match self.attend(&mut child, &output, &mut lines, &mut stdout) {
            Ok(status) => Ok(Finished { status, stdout, lines }),
            Err(error) => {
                let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
                let _ = child.wait();
                bail!("gave up `{name}`: {error:#}\n{}", last_lines(&lines, self.shown_lines))
            }
        }
    }

    fn listen(&mut self, child: &mut Child) -> Receiver<Line> {
        let (sender, receiver) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, sender.clone(), Line::Stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, sender, Line::Stderr);
        }
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input.take()) {
            // A program that ends without reading all of it reports by its exit status.
            thread::spawn(move || stdin.write_all(input.as_bytes()));
        }
        receiver
    }

    fn attend(
        &self,
        child: &mut Child,
        output: &Receiver<Line>,
        lines: &mut Vec<String>,
        stdout: &mut String,
    ) -> Result<ExitStatus> {
        let started = Instant::now();
        let mut ended: Option<(ExitStatus, Instant)> = None;
        loop {
            let received = output.recv_timeout(PAUSE);
            let closed = matches!(received, Err(RecvTimeoutError::Disconnected));
            if let Ok(line) = received {
                let text = match line {
                    Line::Stdout(text) => {
                        stdout.push_str(&text);
                        stdout.push('\n');
                        text
                    }
                    Line::Stderr(text) => text,
                };
                (self.on_line)(&text);
                lines.push(text);
                if started.elapsed() < self.limit && !interrupt::requested() {
                    continue;
                }
            }
            if ended.is_none() {
                ended = child.try_wait()?.map(|status| (status, Instant::now()));
            }
            match ended {
                Some((status, at)) if closed || at.elapsed() > LAST_WORDS => return Ok(status),
                Some(_) => {}
                None => {
                    interrupt::check()?;
                    (self.watch)()?;
                    if started.elapsed() >= self.limit {
                        bail!("it took more than {} s", self.limit.as_secs());
                    }
                    if closed {
                        thread::sleep(PAUSE);
                    }
                }
            }
        }
    }
}

fn forward(source: impl Read + Send + 'static, lines: Sender<Line>, wrap: fn(String) -> Line) {
    thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if lines.send(wrap(text)).is_err() {
                break;
            }
        }
    });
}

/// A command's program and first words, for messages.
fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words = command.get_args().take(4).map(|word| word.to_string_lossy().into_owned());
    [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The end of an output, indented.
pub(crate) fn last_lines(lines: &[String], count: usize) -> String {
    let lines = lines.get(lines.len().saturating_sub(count)..).unwrap_or_default();
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_it_wrote_comes_back_and_what_it_was_given_went_in() {
        let execution =
            Execution::new(shell("read line; echo got $line; echo aside >&2"), Duration::from_secs(10));
        assert_eq!(execution.input("this\n").run().unwrap(), "got this\n");
    }

    #[test]
    fn a_failure_shows_its_last_lines() {
        let error =
            Execution::new(shell("echo no disk >&2; exit 3"), Duration::from_secs(10)).run().unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no disk") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_all_it_started() {
        let started = Instant::now();
        let execution = Execution::new(shell("sleep 60 & echo child $!; wait"), Duration::from_millis(300));
        let text = format!("{:#}", execution.run().unwrap_err());
        assert!(started.elapsed() < Duration::from_secs(30), "{text}");
        let pid =
            text.rsplit_once("child ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        let gone = || crate::process::started(pid.unwrap()).is_none();
        assert!(crate::waiting::comes_true(Duration::from_secs(10), gone));
    }
}
