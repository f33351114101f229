//! The database that follows a Singleton.

use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;

/// File systems that forget, or that are not files at all.
pub(crate) const NOT_KEPT: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/var/run", "/var/lock"];

impl Checker<'_> {
    pub(super) fn database(&mut self) {
        const AT: &str = "/spec/database/path";
        let Some(database) = &self.app.spec.database else { return };
        let path = database.path.as_str();
        if database.confirm == Some(0) {
            let message = "0 standbys confirm nothing";
            self.value("/spec/database/confirm", Rule::OutOfRange, message, "leave it out, or write 1 or more".to_owned());
        }
        if !self.path(AT, Rule::DatabasePath, path) {
            return;
        }
        if path.ends_with('/') {
            let message = format!("{} is a directory", quote(path));
            return self.value(AT, Rule::DatabasePath, message, "name the file: `/data/app.db`".to_owned());
        }
        if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
            let message = format!("{} is not normalised", quote(path));
            return self.value(AT, Rule::DatabasePath, message, "write it without `//`, `.` and `..`".to_owned());
        }
        if let Some(place) =
            NOT_KEPT.iter().find(|place| path.strip_prefix(**place).is_some_and(|rest| rest.starts_with('/') || rest.is_empty()))
        {
            let message = format!("nothing is kept in {}", quote(place));
            self.value(AT, Rule::DatabasePath, message, "choose a directory on a disk, such as `/data` or `/var/lib/myapp`".to_owned());
        }
    }
}
