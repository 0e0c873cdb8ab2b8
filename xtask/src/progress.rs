//! What is being done, as the n-th of how many steps, for how long, and what for.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a step that takes long says so where there is no terminal to redraw.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// The steps of one command. Spinners on a terminal, else plain lines with their time.
pub(crate) struct Progress {
    started: Instant,
    expected: AtomicUsize,
    begun: AtomicUsize,
    screen: Option<MultiProgress>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let screen = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { started: Instant::now(), expected: AtomicUsize::new(0), begun: AtomicUsize::new(0), screen }
    }

    /// Announces more steps, before the first of them.
    pub(crate) fn expect(&self, steps: usize) {
        self.expected.fetch_add(steps, Ordering::Relaxed);
    }

    /// Since the command began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.screen {
            Some(screen) => screen.suspend(|| note!("{line}")),
            None => note!("[{}] {line}", clock(self.elapsed())),
        }
    }

    /// Begins a step, one of those that were expected.
    pub(crate) fn step(&self, what: &str) -> Step<'_> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let expected = self.expected.load(Ordering::Relaxed).max(number);
        self.begin(&format!("{number}/{expected} {what}"), Lines::All)
    }

    /// Begins something that is not counted and soon over, such as stopping what was started.
    pub(crate) fn aside(&self, what: &str) -> Step<'_> {
        self.begin(what, Lines::End)
    }

    /// Begins something whose end its caller tells.
    pub(crate) fn silent(&self, what: &str) -> Step<'_> {
        self.begin(what, Lines::None)
    }

    fn begin(&self, what: &str, lines: Lines) -> Step<'_> {
        let title = what.to_owned();
        let note = Arc::new(Mutex::new(String::new()));
        let display = if let Some(screen) = &self.screen {
            Display::Spinner(spinner(screen, &title))
        } else {
            if lines == Lines::All {
                self.say(&format!("{title} ..."));
            }
            Display::Heartbeat(heartbeat(self.started, title.clone(), Arc::clone(&note)))
        };
        Step { progress: self, started: Instant::now(), title, note, display, lines, finished: false }
    }
}

/// One step, from its beginning until [`Step::done`]. One that is dropped before has failed.
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    started: Instant,
    title: String,
    note: Arc<Mutex<String>>,
    display: Display,
    lines: Lines,
    finished: bool,
}

/// Which lines a step leaves behind: a terminal shows the step meanwhile, and of one that takes long there
/// is a heartbeat in any case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// Its begin, where there is no terminal, and its end.
    All,
    End,
    None,
}

enum Display {
    Spinner(ProgressBar),
    /// Dropping the sender ends the thread.
    Heartbeat(#[expect(dead_code, reason = "held to be dropped")] Sender<()>),
}

impl Step<'_> {
    /// What the step is at right now.
    pub(crate) fn note(&self, line: &str) {
        let line = line.trim();
        match &self.display {
            Display::Spinner(bar) => bar.set_message(line.to_owned()),
            Display::Heartbeat(_) => {
                if let Ok(mut note) = self.note.lock() {
                    line.clone_into(&mut note);
                }
            }
        }
    }

    /// Ends the step well.
    pub(crate) fn done(mut self, result: &str) {
        self.finished = true;
        let seconds = self.started.elapsed().as_secs_f32();
        let colon = if result.is_empty() { "" } else { ": " };
        let line = format!("{}{colon}{result} ({seconds:.1} s)", self.title);
        self.end("✓", &line);
    }

    fn end(&self, mark: &str, line: &str) {
        if let Display::Spinner(bar) = &self.display {
            bar.finish_and_clear();
        }
        match &self.display {
            _ if self.lines == Lines::None => {}
            Display::Spinner(_) => self.progress.say(&format!("{mark} {line}")),
            Display::Heartbeat(_) => self.progress.say(line),
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.end("✗", &format!("{}: failed", self.title));
        }
    }
}

fn spinner(screen: &MultiProgress, title: &str) -> ProgressBar {
    let bar = screen.add(ProgressBar::new_spinner());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}") {
        bar.set_style(style);
    }
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn heartbeat(began: Instant, title: String, note: Arc<Mutex<String>>) -> Sender<()> {
    let (sender, receiver) = mpsc::channel();
    let started = Instant::now();
    thread::spawn(move || {
        while receiver.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            let seconds = started.elapsed().as_secs();
            let note = note.lock().map(|note| note.clone()).unwrap_or_default();
            note!("[{}] {title}: {seconds} s so far; {note}", clock(began.elapsed()));
        }
    });
    sender
}

/// Minutes and seconds, in a column of its own.
fn clock(elapsed: Duration) -> String {
    format!("{:>3}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}
