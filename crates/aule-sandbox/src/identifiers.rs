//! Which users and groups the sandbox has: 0 to 65535, all of them, so that files keep their numeric owners.
//! (user_namespaces(7); subuid(5); newuidmap(1).)

use crate::{Result, SandboxError};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// How many identifiers there are.
const COUNT: u64 = 65_536;

/// Maps the identifiers of the process `child`, which is in a user namespace of its own. Root writes the maps itself, and
/// keeps the numbers. For anybody else root inside is who they are outside, and the others come from the ranges that
/// they were lent.
pub(crate) fn map(child: u32, search: &[PathBuf]) -> Result<()> {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        for (file, own) in [("uid_map", "/proc/self/uid_map"), ("gid_map", "/proc/self/gid_map")] {
            let has = fs::read_to_string(own).map_err(SandboxError::Start)?;
            if !covers(&has) {
                return Err(SandboxError::Missing {
                    what: format!("this container has not all of the users 0 to 65535 ({own})"),
                    help: "run the container with a user namespace of at least 65536 identifiers, or without one"
                        .into(),
                });
            }
            fs::write(format!("/proc/{child}/{file}"), format!("0 0 {COUNT}\n")).map_err(SandboxError::Start)?;
        }
        return Ok(());
    }
    let group = nix::unistd::getegid();
    let name = nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name);
    for (program, file, own) in
        [("newuidmap", "/etc/subuid", user.as_raw()), ("newgidmap", "/etc/subgid", group.as_raw())]
    {
        let text = fs::read_to_string(file).unwrap_or_default();
        let start = lent(&text, name.as_deref(), user.as_raw()).ok_or_else(|| SandboxError::Missing {
            what: format!(
                "{file} lends this user no range of 65536 identifiers, and the packages' files have several owners"
            ),
            help: {
                let lent = ["/etc/subuid", "/etc/subgid"].map(|file| fs::read_to_string(file).unwrap_or_default());
                let (first, last) = free(&lent);
                let user = name.as_deref().unwrap_or("USER");
                format!("run `sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}`")
            },
        })?;
        let program = find(search, program).ok_or_else(|| SandboxError::Missing {
            what: format!("the program {program} is missing, which lends a user the identifiers of {file}"),
            help: "run `sudo apt-get install uidmap`".into(),
        })?;
        let arguments = [child.into(), 0, own.into(), 1, 1, start, COUNT - 1].map(|it: u64| it.to_string());
        let done = Command::new(&program).args(arguments).output().map_err(SandboxError::Start)?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(SandboxError::Missing {
                what: format!("{} refuses: {}", program.display(), said.trim()),
                help: format!(
                    "see that {} is setuid root, and that {file} lends this user a range of its own",
                    program.display()
                ),
            });
        }
    }
    Ok(())
}

/// The map that a sandbox of this user has, as a name: what was unpacked in one sandbox has other owners in another map.
#[must_use]
pub fn name_of_map() -> String {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        // The first row tells maps apart that containers have.
        let first = map.lines().next().unwrap_or_default();
        return format!("root-{}", first.split_whitespace().collect::<Vec<_>>().join("-"));
    }
    let name = nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name);
    let own = [("/etc/subuid", user.as_raw()), ("/etc/subgid", nix::unistd::getegid().as_raw())];
    let parts = own.map(|(file, id)| {
        let start = lent(&fs::read_to_string(file).unwrap_or_default(), name.as_deref(), user.as_raw());
        format!("{id}-{}", start.unwrap_or_default())
    });
    parts.join("-")
}

/// A program in the directories that are searched.
pub(crate) fn find(search: &[PathBuf], name: &str) -> Option<PathBuf> {
    search.iter().map(|directory| directory.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// Whether a map gives all identifiers from 0 on.
fn covers(map: &str) -> bool {
    let mut rows: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let inside = fields.next()?.parse().ok()?;
            Some((inside, fields.nth(1)?.parse().ok()?))
        })
        .collect();
    rows.sort_unstable();
    let mut next = 0;
    for (inside, count) in rows {
        if inside > next {
            break;
        }
        next = next.max(inside.saturating_add(count));
    }
    next >= COUNT
}

/// The start of a range of 65,535 that a file in the form of subuid(5) lends to the user, by name or by number.
fn lent(text: &str, name: Option<&str>, user: u32) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?.trim();
        let (start, count): (u64, u64) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        let is_own = Some(owner) == name || owner.parse() == Ok(user);
        (is_own && count >= COUNT - 1 && start > 0).then_some(start)
    })
}

/// The first and the last of a range that is lent to nobody, behind all that are: who has another's range can change their
/// files. Distributions lend from 100000 on (login.defs(5), `SUB_UID_MIN`).
fn free(files: &[String]) -> (u64, u64) {
    let ends = files.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        let (start, count): (u64, u64) = (fields.next()?.trim().parse().ok()?, fields.next()?.trim().parse().ok()?);
        start.checked_add(count)
    });
    let first = ends.fold(100_000, u64::max);
    (first, first.saturating_add(COUNT - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_or_number() {
        let text = "# lent\nbilbo:100000:65536\n1001:200000:1000\n1001:300000:65536\nfrodo:1:70000:\n";
        for (name, user, wanted) in [
            (Some("bilbo"), 5, Some(100_000)),
            (Some("sam"), 1001, Some(300_000)),
            (None, 1001, Some(300_000)),
            (Some("sam"), 7, None),
            (Some("bilb"), 7, None),
        ] {
            assert_eq!(lent(text, name, user), wanted, "{name:?} {user}");
        }
        assert_eq!(lent("x:0:65536", Some("x"), 7), None, "root is never lent");
    }

    #[test]
    fn the_range_that_is_proposed_is_nobodys() {
        for (subuid, subgid, wanted) in [
            ("", "", (100_000, 165_535)),
            ("a:100000:65536\n", "", (165_536, 231_071)),
            ("a:100000:65536\nodd\nb:900000:10\n", "c:165536:65536:\n", (900_010, 965_545)),
            ("a:5:5\n", "a:18446744073709551615:1\n", (100_000, 165_535)),
        ] {
            assert_eq!(free(&[subuid.into(), subgid.into()]), wanted, "{subuid} {subgid}");
        }
    }

    #[test]
    fn maps_must_begin_at_zero_without_a_gap() {
        for (map, wanted) in [
            ("         0          0 4294967295\n", true),
            ("0 1000 1\n1 100000 65535\n", true),
            ("1 100000 65535\n0 1000 1\n", true),
            ("0 1000 1\n", false),
            ("0 1000 1\n2 100000 65536\n", false),
            ("", false),
        ] {
            assert_eq!(covers(map), wanted, "{map}");
        }
    }
}
