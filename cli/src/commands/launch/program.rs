//! This program in a container, whatever image that is of. It is built for this machine's C library, which an image need
//! not have; so what it is made of is mounted as well, and its loader told where that is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::commands::start::this_program;
use crate::failure::Failure;

/// Where our own things are in a container.
pub(super) const OURS: &str = "/tokfence";

/// The files that this program consists of, and how it is started from them.
#[derive(Debug)]
pub(super) struct Program {
    /// Each file, and where it is in the container.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) command: Vec<String>,
}

impl Program {
    /// The program that runs.
    pub(super) fn this() -> Result<Self, Failure> {
        let program = this_program()?;
        let maps = std::fs::read_to_string("/proc/self/maps")
            .map_err(|error| Failure::failed("find what this program is made of", &error))?;
        Ok(Self::of(&program, &libraries(&maps)))
    }

    fn of(program: &Path, libraries: &BTreeSet<PathBuf>) -> Self {
        let within = format!("{OURS}/tokfence");
        let mut files = vec![(program.to_owned(), within.clone())];
        let mut command = Vec::new();
        for library in libraries {
            let name = name(library);
            let place = format!("{OURS}/lib/{name}");
            if name.starts_with("ld-") {
                command = vec![place.clone(), "--library-path".to_owned(), format!("{OURS}/lib")];
            }
            files.push((library.clone(), place));
        }
        command.push(within);
        Self { files, command }
    }
}

/// The shared libraries that a process has mapped, its loader among them; none where it is one file.
fn libraries(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| Some(Path::new(&line[line.find(" /")? + 1..])));
    paths.filter(|path| name(path).contains(".so")).map(Path::to_owned).collect()
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "55e4c1a00000-55e4c1b00000 r-xp 00000000 fe:00 12 /opt/to k/tokfence\n\
        7f0000000000-7f0000100000 r-xp 00000000 fe:00 13 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
        7f0000100000-7f0000200000 rw-p 00000000 fe:00 13 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
        7f0000200000-7f0000300000 r-xp 00000000 fe:00 14 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n\
        7ffc00000000-7ffc00100000 rw-p 00000000 00:00 0 [stack]\n";

    #[test]
    fn a_program_is_started_by_the_loader_that_it_came_with() {
        let program = Program::of(Path::new("/opt/to k/tokfence"), &libraries(MAPS));
        let places: Vec<&str> = program.files.iter().map(|(_, place)| place.as_str()).collect();
        assert_eq!(
            places,
            ["/tokfence/tokfence", "/tokfence/lib/ld-linux-x86-64.so.2", "/tokfence/lib/libc.so.6"]
        );
        let command =
            ["/tokfence/lib/ld-linux-x86-64.so.2", "--library-path", "/tokfence/lib", "/tokfence/tokfence"];
        assert_eq!(program.command, command);
    }

    #[test]
    fn one_that_is_a_single_file_is_started_as_it_is() {
        let program = Program::of(Path::new("/bin/tokfence"), &BTreeSet::new());
        assert_eq!((program.files.len(), program.command), (1, vec!["/tokfence/tokfence".to_owned()]));
    }
}
