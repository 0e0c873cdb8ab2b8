//! Files that are committed although they can be made, so that a review sees what changes.

use std::path::Path;
use std::{env, fs, io};

/// `made` is what the file at `path` says. With `UPDATE_SNAPSHOTS` set, it is made so.
///
/// # Panics
///
/// With the first line that differs.
pub fn assert_same_as_committed(path: &Path, made: &str) {
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        replace(path, made).unwrap_or_else(|error| panic!("failed to write {}: {error}", path.display()));
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    if committed == made {
        return;
    }
    let same = made.lines().zip(committed.lines()).take_while(|(made, committed)| made == committed).count();
    panic!(
        "{} line {}:\n  committed: {}\n  now:       {}\nIf that is meant: UPDATE_SNAPSHOTS=1 cargo test -p chart-tests",
        path.display(),
        same + 1,
        committed.lines().nth(same).unwrap_or("(end of file)"),
        made.lines().nth(same).unwrap_or("(end of file)"),
    );
}

/// In one step, because other tests may be rendering the chart right now.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    fs::rename(new, path)
}
