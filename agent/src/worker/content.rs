//! The text of the unit, where the agent writes it.

use super::Worker;
use super::target::Desired;
use crate::drivers::unit_text::{self, Values};
use crate::drivers::{Units, Vips};

impl<U: Units, V: Vips> Worker<U, V> {
    /// What is filled in; `folder` is that of the App's files.
    pub(super) fn values<'v>(&'v self, desired: &'v Desired, folder: &'v str) -> Values<'v> {
        Values {
            node: &self.parts.node,
            node_address: desired.node_address.as_deref(),
            database_path: desired.entry.run.database.as_ref().map(|d| d.path.as_str()),
            app_runtime_dir: folder,
        }
    }

    /// The unit's text; none where others installed it.
    pub(super) fn unit_content(&self, desired: &Desired) -> Result<Option<String>, String> {
        let run = &desired.entry.run;
        if let Some(exec) = &run.exec {
            let folder = self.parts.folder.to_string_lossy();
            let text = unit_text::exec_unit(&self.parts.app, exec, &self.values(desired, &folder));
            return text.map(Some).map_err(|e| cluster_telemetry::chain(&e));
        }
        Ok(run.unit.as_ref().and_then(|u| u.content.as_ref()).map(|text| unit_text::owned(&self.parts.app, text)))
    }
}
