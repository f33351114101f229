//! A controller that is told to end.

use std::io::Write;
use std::net::TcpStream;

use crate::world::{Controller, LIMIT, Nats};

#[test]
fn half_a_request_does_not_keep_it_from_ending() {
    let nats = Nats::start();
    let controller = Controller::ready(&nats, "one", "");
    let mut half = TcpStream::connect(controller.address).expect("a connection");
    let head = "PUT /v1/apps/web HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    half.write_all(head.as_bytes()).expect("a controller that reads");
    // The next answer on another connection says that it has begun to read the first.
    controller.get("/v1/apps");
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        controller.end();
        // Nobody listens where it took too long.
        let _told = ended.send(());
    });
    end.recv_timeout(LIMIT).expect("its end, whatever its clients do");
    drop(half);
}
