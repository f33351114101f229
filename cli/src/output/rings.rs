//! Rings as tables.

use cluster_schemas::PartitionSet;
use cluster_schemas::api::{Located, RingTable};

use super::table::Table;
use super::{NONE, cut};

/// Most characters of a partition list that a narrow table shows.
const PARTITIONS_CHARS_MAX: usize = 60;

/// Who owns what. With `wide` all partitions, and those that are not confirmed.
pub(crate) fn table(ring: &RingTable, wide: bool) -> Table {
    let mut headers = vec!["NODE", "COUNT", "PARTITIONS", "CONFIRMED"];
    if wide {
        headers.extend(["ADDRESS", "UNCONFIRMED"]);
    }
    let mut table = Table::new(&headers);
    for owner in &ring.owners {
        let all = set(&owner.partitions);
        let mut row = vec![
            owner.node.clone(),
            owner.partitions.len().to_string(),
            if wide { all } else { cut(&all, PARTITIONS_CHARS_MAX) },
            format!("{}/{}", owner.confirmed.intersection(&owner.partitions).len(), owner.partitions.len()),
        ];
        if wide {
            row.push(owner.address.clone().unwrap_or_else(|| NONE.to_owned()));
            row.push(set(&owner.partitions.difference(&owner.confirmed)));
        }
        table.row(row);
    }
    table
}

/// The line under the table.
pub(crate) fn summary(ring: &RingTable) -> String {
    let unowned = match ring.unowned.len() {
        0 => "none unowned".to_owned(),
        count => format!("{count} unowned: {}", ring.unowned),
    };
    format!("{} partitions, table version {}, {unowned}", ring.partitions, ring.version)
}

/// Where a key lives.
pub(crate) fn located(located: &Located) -> Table {
    let text = |value: Option<&str>| value.unwrap_or(NONE).to_owned();
    let mut table = Table::new(&["KEY", "PARTITION", "NODE", "ADDRESS", "EPOCH", "VERSION"]);
    table.row(vec![
        located.key.clone(),
        located.partition.to_string(),
        text(located.node.as_deref()),
        text(located.address.as_deref()),
        located.epoch.map_or_else(|| NONE.to_owned(), |epoch| epoch.to_string()),
        located.version.to_string(),
    ]);
    table
}

fn set(partitions: &PartitionSet) -> String {
    if partitions.is_empty() { NONE.to_owned() } else { partitions.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ring() -> RingTable {
        let fragmented: PartitionSet = (0..40).map(|n| n * 2).collect();
        serde_json::from_value(json!({
            "app": "cache", "partitions": 128, "version": 12,
            "owners": [
                {"node": "n1", "address": "10.0.0.1", "partitions": fragmented.to_string(), "confirmed": fragmented.to_string()},
                {"node": "n2", "partitions": "81-90", "confirmed": "81-85,100"},
                {"node": "n3", "partitions": "", "confirmed": ""},
            ],
            "unowned": "126-127",
        }))
        .unwrap()
    }

    #[test]
    fn both_tables() {
        assert_eq!(
            table(&ring(), false).render(false),
            "\
NODE   COUNT   PARTITIONS                                                     CONFIRMED
n1     40      0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36,38,40,4…   40/40
n2     10      81-90                                                          5/10
n3     0       <none>                                                         0/0
"
        );
        let wide = table(&ring(), true).render(false);
        assert!(wide.contains("74,76,78   40/40       10.0.0.1   <none>\n"), "{wide}");
        assert!(wide.contains("5/10        <none>     86-90\n"), "{wide}");
    }

    #[test]
    fn the_line_under_it() {
        assert_eq!(summary(&ring()), "128 partitions, table version 12, 2 unowned: 126-127");
        assert_eq!(
            summary(&RingTable { partitions: 256, version: 3, ..RingTable::default() }),
            "256 partitions, table version 3, none unowned"
        );
    }

    #[test]
    fn a_key_with_and_without_an_owner() {
        let mut found = Located {
            app: "cache".to_owned(),
            key: "user:42".to_owned(),
            partition: 170,
            version: 12,
            node: Some("n2".to_owned()),
            address: Some("10.0.0.2".to_owned()),
            epoch: Some(4),
        };
        assert_eq!(
            located(&found).render(false),
            "KEY       PARTITION   NODE   ADDRESS    EPOCH   VERSION\nuser:42   170         n2     10.0.0.2   4       12\n"
        );
        (found.node, found.address, found.epoch) = (None, None, None);
        assert_eq!(located(&found).render(true), "user:42   170   <none>   <none>   <none>   12\n");
    }
}
