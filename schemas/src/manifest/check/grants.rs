//! What it lets other Apps do.

use super::super::rule::Rule;
use super::super::text::quote;
use super::Checker;

/// Most Apps that `grants` may name.
pub(super) const GRANTS_MAX: usize = 64;

impl Checker<'_> {
    pub(super) fn grants(&mut self) {
        let grants = &self.app.spec.grants;
        self.at_most("/spec/grants", grants.len(), GRANTS_MAX, "entry");
        for (n, grant) in grants.iter().enumerate() {
            let at = format!("/spec/grants/{n}/app");
            if grants.iter().take(n).any(|before| before.app == grant.app) {
                let message = format!("{} stands here a second time", quote(&grant.app));
                self.value(&at, Rule::Grants, message, "name all its rights in one entry".to_owned());
            } else if self.sound("/metadata/name") && grant.app == self.app.metadata.name {
                let message = format!("{} needs no grant for its own things", quote(&grant.app));
                self.value(&at, Rule::Grants, message, "leave it out".to_owned());
            } else {
                self.name(&at, Rule::Grants, &grant.app);
            }
            let at = format!("/spec/grants/{n}/rights");
            if grant.rights.is_empty() {
                self.value(&at, Rule::Grants, "without rights nothing is granted", "write one such as `StateRead`".to_owned());
            }
            for (m, right) in grant.rights.iter().enumerate().filter(|(m, right)| grant.rights[..*m].contains(right)) {
                let message = format!("{} stands here a second time", quote(right.as_str()));
                self.value(&format!("{at}/{m}"), Rule::Grants, message, "leave one out".to_owned());
            }
        }
    }
}
