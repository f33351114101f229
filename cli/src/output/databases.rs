//! Databases, for people.

use cluster_schemas::database::{DatabaseDivergence, DatabaseNode, DatabaseStatus, DatabaseSynced, DatabaseVerified, DatabaseWork};

use super::table::Table;
use super::{NONE, UNKNOWN};

/// SQLite from which on several processes may checkpoint one database without the risk of losing a page.
const SAFE_SQLITE: [u32; 3] = [3, 51, 3];
/// Void transactions that are listed one by one.
const LISTED: usize = 100;

/// A number of bytes as people read it.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let (mut value, mut unit) = (count, 0);
    while value >= 10 * 1024 && unit + 1 < units.len() {
        (value, unit) = (value / 1024, unit + 1);
    }
    format!("{value} {}", units[unit])
}

/// A row for each node.
pub(crate) fn status(status: &DatabaseStatus, wide: bool) -> Table {
    let mut headers = vec!["NODE", "ROLE", "EPOCH", "TRANSACTION", "LAG", "SIZE", "REASON"];
    if wide {
        headers.extend(["LOG", "DURABLE", "CAPTURED", "RESYNCS", "SQLITE", "DIVERGENCES"]);
    }
    let mut table = Table::new(&headers);
    for node in &status.nodes {
        let known = node.role != "Unknown";
        let told = |text: String| if known { text } else { UNKNOWN.to_owned() };
        let o = &node.observed;
        let lag = if node.role == "Standby" { o.lag.to_string() } else { NONE.to_owned() };
        let reason = if o.reason.is_empty() { NONE.to_owned() } else { o.reason.clone() };
        let mut row = vec![node.node.clone(), node.role.clone(), told(o.epoch.to_string()), told(o.transaction.to_string())];
        row.extend([told(lag), told(bytes(o.bytes)), told(reason)]);
        if wide {
            let sqlite = if node.sqlite.is_empty() { NONE.to_owned() } else { node.sqlite.clone() };
            let durable = node.durable.map_or_else(|| NONE.to_owned(), |transaction| transaction.to_string());
            row.extend([
                told(bytes(node.log_bytes)),
                told(durable),
                told(node.captured.to_string()),
                told(node.resyncs.to_string()),
                told(sqlite),
            ]);
            row.push(told(node.divergences.len().to_string()));
        }
        table.row(row);
    }
    table
}

fn is_old(version: &str) -> bool {
    let parts: Vec<u32> = version.split('.').filter_map(|part| part.parse().ok()).collect();
    parts.len() == SAFE_SQLITE.len() && parts.as_slice() < SAFE_SQLITE.as_slice()
}

/// What a person should know beside the table.
pub(crate) fn remarks(status: &DatabaseStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for DatabaseNode { node, observed, sqlite, divergences, stream, .. } in &status.nodes {
        if !observed.message.is_empty() {
            lines.push(format!("{node}: {}", observed.message));
        }
        if !stream.is_empty() {
            lines.push(format!("{node}: the durable stream does not go on: {stream}"));
        }
        if is_old(sqlite) {
            lines.push(format!(
                "{node}: the application's SQLite is {sqlite}; before 3.51.3 several processes that checkpoint one database may lose a page. One \
                 process is safe: clusterctl checkpoints under the write lock only."
            ));
        }
        if !divergences.is_empty() {
            lines.push(format!("{node}: keeps transactions that nobody else had: clusterctl db divergence {}", status.app));
        }
    }
    lines
}

/// The files of all nodes.
pub(crate) fn divergences(status: &DatabaseStatus) -> Table {
    let mut table = Table::new(&["NODE", "FILE"]);
    for node in &status.nodes {
        for file in &node.divergences {
            table.row(vec![node.node.clone(), file.clone()]);
        }
    }
    table
}

/// What one of them holds.
pub(crate) fn divergence(shown: &DatabaseDivergence) -> String {
    let mut table = Table::new(&["EPOCH", "TRANSACTION", "COMMITTED", "PAGES"]);
    for void in shown.void.iter().take(LISTED) {
        let at = jiff::Timestamp::from_millisecond(i64::try_from(void.time_ms).unwrap_or_default());
        let at = at.map_or_else(|_| UNKNOWN.to_owned(), |at| at.to_string());
        table.row(vec![void.epoch.to_string(), void.transaction.to_string(), at, void.pages.to_string()]);
    }
    let more = shown.void.len().saturating_sub(LISTED);
    let more = if more > 0 { format!("... and {more} more\n") } else { String::new() };
    let count = shown.void.len();
    format!(
        "{} on {}: {count} transactions after {}, the last one that both histories have\n{}{more}",
        shown.name,
        shown.node,
        shown.base,
        table.render(false)
    )
}

/// The end of a wait.
pub(crate) fn synced(app: &str, synced: &DatabaseSynced) -> String {
    let DatabaseSynced { node, epoch, transaction, standbys } = synced;
    format!("app/{app}: transaction {transaction} of {node} (epoch {epoch}) is on {}", standbys.join(", "))
}

/// How far work is.
pub(crate) fn progress(work: &DatabaseWork) -> String {
    let DatabaseWork { node, what, done_bytes, total_bytes, .. } = work;
    let total = if *total_bytes == 0 { String::new() } else { format!(" of about {}", bytes((*total_bytes).max(*done_bytes))) };
    format!("{node}: {what}, {}{total}", bytes(*done_bytes))
}

/// What a check found.
pub(crate) fn verified(found: &DatabaseVerified) -> String {
    let DatabaseVerified { node, epoch, transaction, checksum, wrong } = found;
    let head = format!("{node}: transaction {transaction} of epoch {epoch}, checksum {checksum}");
    if wrong.is_empty() {
        return format!("{head}: all is well\n");
    }
    wrong.iter().fold(format!("{head}:\n"), |text, line| format!("{text}  {line}\n"))
}

#[cfg(test)]
mod tests {
    use cluster_schemas::database::{DatabaseObserved, VoidTransaction};

    use super::*;

    fn node(name: &str, role: &str, transaction: u64, lag: u64) -> DatabaseNode {
        let observed = DatabaseObserved { epoch: 3, transaction, lag, bytes: 40 << 20, ..DatabaseObserved::default() };
        DatabaseNode { node: name.to_owned(), role: role.to_owned(), observed, ..DatabaseNode::default() }
    }

    #[test]
    fn a_row_for_each_node_and_what_is_not_known_says_so() {
        let mut nodes = vec![node("n1", "Active", 120, 0), node("n2", "Standby", 118, 2), node("n3", "Unknown", 0, 0)];
        nodes[0].sqlite = "3.40.1".to_owned();
        nodes[1].divergences = vec!["divergence-e1-t5-t7".to_owned()];
        let status = DatabaseStatus { app: "db".to_owned(), nodes, ..DatabaseStatus::default() };
        assert_eq!(
            super::status(&status, false).render(false),
            "NODE   ROLE      EPOCH       TRANSACTION   LAG         SIZE        REASON\n\
             n1     Active    3           120           <none>      40 MiB      <none>\n\
             n2     Standby   3           118           2           40 MiB      <none>\n\
             n3     Unknown   <unknown>   <unknown>     <unknown>   <unknown>   <unknown>\n"
        );
        let remarks = remarks(&status).join("\n");
        assert!(remarks.contains("n1: the application's SQLite is 3.40.1") && remarks.contains("clusterctl db divergence db"), "{remarks}");
        assert_eq!(divergences(&status).render(true), "n2   divergence-e1-t5-t7\n");
    }

    #[test]
    fn only_an_older_sqlite_is_warned_of() {
        assert!(is_old("3.40.1") && is_old("3.51.2"));
        assert!(!is_old("3.51.3") && !is_old("3.54.0") && !is_old("") && !is_old("x"));
    }

    #[test]
    fn a_long_divergence_is_cut() {
        let one = |transaction| VoidTransaction { epoch: 1, transaction, time_ms: 1_795_000_000_000, pages: 2 };
        let void = (5..110).map(one).collect();
        let shown = DatabaseDivergence { node: "n1".to_owned(), name: "divergence-e1-t5-t109".to_owned(), base: 4, void };
        let text = divergence(&shown);
        assert!(text.starts_with("divergence-e1-t5-t109 on n1: 105 transactions after 4") && text.ends_with("... and 5 more\n"), "{text}");
    }
}
