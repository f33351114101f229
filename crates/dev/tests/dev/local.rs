//! The local API of the nodes' agents.

use crate::world::Dev;

/// A process knows itself by the socket of its node alone; on the socket of another node it is nobody's.
#[test]
fn a_process_learns_who_it_is_from_the_socket_of_its_node() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = home.path().join("dev");
    let dev = Dev::start(&folder, &["--nodes", "2"]);
    let out = home.path().join("out");
    // The grandchild asks: it descends from what the node started.
    let script = format!(
        "cd {}; curl -s --unix-socket $CLUSTERCTL_SOCKET http://x/v1/self > self.$CLUSTERCTL_NODE.new; \
         curl -s --unix-socket ../nodes/n1/run/local.sock http://x/v1/self > n1.$CLUSTERCTL_NODE.new; \
         for f in self n1; do mv $f.$CLUSTERCTL_NODE.new $f.$CLUSTERCTL_NODE; done; exec sleep 3600",
        out.display()
    );
    std::fs::create_dir(&out).expect("a folder");
    std::os::unix::fs::symlink(folder.join("nodes"), home.path().join("nodes")).expect("a link");
    dev.apply_shell("curious", "Spread", &script);
    let said = |file: &str| -> Option<serde_json::Value> { serde_json::from_slice(&std::fs::read(out.join(file)).ok()?).ok() };
    for node in ["n1", "n2"] {
        let me = dev.until("an answer", || said(&format!("self.{node}")));
        assert_eq!((me["app"].as_str(), me["node"].as_str(), me["role"].as_str()), (Some("curious"), Some(node), Some("Member")), "{me}");
    }
    assert_eq!(dev.until("an answer", || said("n1.n1"))["app"], "curious");
    // Of the same user as the agent, it may ask as an operator, and has to say about whom.
    assert_eq!(dev.until("an answer", || said("n1.n2"))["type"], "bad-request");
}
