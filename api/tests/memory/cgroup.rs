//! How much memory a program takes, and a limit to it: a control group, or the sum of its parts where none can be
//! made.
//!
//! A container's limit holds for its processes' memory, the kernel's for them, and its sockets' buffers (cgroup v2,
//! `memory.max`). A group of version 1 counts the sockets apart, and who is not root makes no group: there the sum is
//! measured and held against the limit.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is measured.
const EVERY: Duration = Duration::from_millis(10);

/// A program's memory, which is measured while it runs.
pub(crate) struct Memory {
    source: Arc<Source>,
    peak: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    sampler: Option<JoinHandle<()>>,
}

enum Source {
    /// A group of version 2, which has all in one number.
    Two(PathBuf),
    /// A group of version 1.
    One(PathBuf),
    /// No group: the process of this number, and the buffers of all sockets beyond those there were before.
    Process { pid: u32, sockets_before: u64 },
}

impl Memory {
    /// Starts a program that may take so many bytes.
    pub(crate) fn of(command: &Command, limit: u64) -> (Child, Self) {
        let name = format!("flagmeter-test-{}-{}", std::process::id(), unique());
        let group = two(&name, limit).or_else(|| one(&name, limit));
        // The shell joins the group, and becomes the program.
        let join = group.as_ref().map_or_else(String::new, |group| {
            format!("echo $$ > {}/cgroup.procs || exit 1; ", group.folder().display())
        });
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{join}ulimit -n 8192; exec \"$0\"")]).arg(command.get_program());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).process_group(0);
        let child = shell.spawn().unwrap();
        let source =
            group.unwrap_or_else(|| Source::Process { pid: child.id(), sockets_before: all_sockets() });
        println!("measured by {}", source.name());
        let (source, peak, done) =
            (Arc::new(source), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sampler = std::thread::spawn({
            let (source, peak, done) = (Arc::clone(&source), Arc::clone(&peak), Arc::clone(&done));
            move || {
                while !done.load(Ordering::Relaxed) {
                    peak.fetch_max(source.bytes(), Ordering::Relaxed);
                    std::thread::sleep(EVERY);
                }
            }
        });
        (child, Self { source, peak, done, sampler: Some(sampler) })
    }

    /// What it takes now, without the files that the kernel could forget.
    pub(crate) fn now(&self) -> u64 {
        self.source.bytes()
    }

    /// The most that it took.
    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Whether the kernel ended it for its memory.
    pub(crate) fn was_killed(&self) -> bool {
        let events = match &*self.source {
            Source::Two(folder) => read(&folder.join("memory.events")),
            Source::One(folder) => read(&folder.join("memory.oom_control")),
            Source::Process { .. } => return false,
        };
        field(&events, "oom_kill") > 0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            let _ = sampler.join();
        }
        if let Source::One(folder) | Source::Two(folder) = &*self.source {
            let gone = || fs::remove_dir(folder).is_ok() || !folder.exists();
            // A process that was ended leaves its group a moment later.
            for _ in 0..100 {
                if gone() {
                    break;
                }
                std::thread::sleep(EVERY);
            }
        }
    }
}

impl Source {
    fn folder(&self) -> &Path {
        match self {
            Self::One(folder) | Self::Two(folder) => folder,
            Self::Process { .. } => Path::new(""),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Two(_) => "a control group of version 2",
            Self::One(_) => "a control group of version 1",
            Self::Process { .. } => {
                "the process's own pages and the sockets' buffers: no control group can be made"
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Two(folder) => {
                let files = field(&read(&folder.join("memory.stat")), "file");
                number(&folder.join("memory.current")).saturating_sub(files)
            }
            Self::One(folder) => {
                let files = field(&read(&folder.join("memory.stat")), "cache");
                let own = number(&folder.join("memory.usage_in_bytes")).saturating_sub(files);
                own + number(&folder.join("memory.kmem.tcp.usage_in_bytes"))
            }
            Self::Process { pid, sockets_before } => {
                let pages = read(Path::new(&format!("/proc/{pid}/smaps_rollup")));
                // The clients' sockets are counted, too, so this is rather too much.
                field(&pages, "Pss_Anon:") * 1_024 + all_sockets().saturating_sub(*sockets_before)
            }
        }
    }
}

/// A group of version 2 beside that of this process, or at the top where root may make one.
fn two(name: &str, limit: u64) -> Option<Source> {
    let own = read(Path::new("/proc/self/cgroup"));
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let parents = [root.join(own).parent().map(Path::to_owned)?, root.to_owned()];
    let folder = parents.iter().find_map(|parent| {
        read(&parent.join("cgroup.subtree_control")).contains("memory").then_some(())?;
        made(&parent.join(name))
    })?;
    // Swap would hide what does not fit.
    let _ = fs::write(folder.join("memory.swap.max"), "0");
    limited(&folder.join("memory.max"), limit).then_some(Source::Two(folder))
}

/// A group of version 1 inside of that of this process.
fn one(name: &str, limit: u64) -> Option<Source> {
    let own = read(Path::new("/proc/self/cgroup"));
    let own = own.lines().find_map(|line| line.split_once(":memory:/"))?.1;
    let folder = made(&Path::new("/sys/fs/cgroup/memory").join(own).join(name))?;
    // Sockets are only counted where they have a limit.
    let both = ["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"];
    both.iter().all(|file| limited(&folder.join(file), limit)).then_some(Source::One(folder))
}

fn made(folder: &Path) -> Option<PathBuf> {
    fs::create_dir(folder).ok().map(|()| folder.to_owned())
}

fn limited(file: &Path, limit: u64) -> bool {
    fs::write(file, limit.to_string()).is_ok()
}

/// The buffers of all TCP sockets of this machine, in bytes.
fn all_sockets() -> u64 {
    const PAGE: u64 = 4_096;
    let text = read(Path::new("/proc/net/sockstat"));
    let tcp = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    tcp.split_once(" mem ").and_then(|(_, pages)| pages.trim().parse::<u64>().ok()).unwrap_or_default() * PAGE
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    read(path).trim().parse().unwrap_or_default()
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next())?
    });
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
