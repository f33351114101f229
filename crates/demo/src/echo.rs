//! Sends datagrams back: a client that counts them knows to the millisecond when nobody was there.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

/// Longer datagrams are cut off.
const DATAGRAM_MAX: usize = 2048;

/// Opens the socket.
///
/// # Errors
/// The address cannot be had.
pub(crate) async fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address).await.map_err(|e| io::Error::new(e.kind(), format!("cannot echo on {address}: {e}")))
}

/// Answers for as long as this process lives. A datagram that cannot be answered is lost, as datagrams are.
pub(crate) async fn serve(socket: UdpSocket) {
    let mut bytes = vec![0; DATAGRAM_MAX];
    loop {
        // An error here is a client's port that was closed, told by ICMP.
        if let Ok((length, from)) = socket.recv_from(&mut bytes).await
            && let Some(datagram) = bytes.get(..length)
        {
            socket.send_to(datagram, from).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_come_back() {
        let server = open("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(serve(server));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"seven", address).await.unwrap();
        let mut bytes = [0; 16];
        let (length, from) = client.recv_from(&mut bytes).await.unwrap();
        assert_eq!((&bytes[..length], from), (b"seven".as_slice(), address));
    }
}
