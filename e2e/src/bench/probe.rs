//! A client that sends a datagram every 2 ms, whether or not the last one was answered.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Context, LabError, Result};
use crate::lab::Lab;

/// Between two datagrams.
const PERIOD: Duration = Duration::from_millis(2);
/// An answer that took longer says nothing of its time: the datagram waited on this side for the address to be known again.
const ANSWER_MAX: Duration = Duration::from_millis(50);

/// Asks until it is dropped.
#[derive(Debug)]
pub(super) struct Probe {
    /// When each datagram was sent that was answered, in order.
    answered: Arc<Mutex<Vec<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Probe {
    /// Begins to ask the echo behind this address, from the client's side of the network.
    pub(super) fn start(lab: &Lab, addr: SocketAddr) -> Self {
        let (answered, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (lab, record, stopped) = (lab.clone(), Arc::clone(&answered), Arc::clone(&stop));
        let thread = thread::spawn(move || lab.as_client(|| ask(addr, &record, &stopped))?);
        Self { answered, stop, thread: Some(thread) }
    }

    /// The longest time between two answered datagrams of which the second was sent after `fault`.
    ///
    /// # Errors
    /// A text for a wait: nothing answered before, or not for the last `quiet`.
    pub(super) fn gap(&self, fault: Instant, quiet: Duration) -> Result<Duration, String> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = answered.windows(2).filter(|pair| pair[1] >= fault).map(|pair| pair[1] - pair[0]).max();
        match (answered.first(), answered.last(), longest) {
            (Some(first), Some(last), Some(longest)) if *first < fault && last.elapsed() < ANSWER_MAX && *last >= fault + quiet => {
                Ok(longest)
            }
            (_, Some(last), _) => Err(format!("the last answered datagram was sent {:.0?} ago", last.elapsed())),
            _ => Err("nothing was ever answered".to_owned()),
        }
    }

    /// Waits until it is answered.
    pub(super) fn wait(&self) -> Result<()> {
        crate::wait::wait_until("the echo to answer", Duration::from_secs(20), || {
            let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = answered.last().is_some_and(|last| last.elapsed() < ANSWER_MAX);
            if fresh && answered.len() > 50 { Ok(()) } else { Err(format!("{} answers", answered.len())) }
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Whoever waits for answers has noticed an error as their absence.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn ask(addr: SocketAddr, record: &Mutex<Vec<Instant>>, stop: &AtomicBool) -> Result<()> {
    crate::witness::real_time();
    let action = || format!("ask {addr} by UDP");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context(action)?;
    socket.set_nonblocking(true).context(action)?;
    let mut sent: Vec<Instant> = Vec::new();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // A network that is unreachable for a moment answers here; the datagram is as lost as any other.
        let _lost = socket.send_to(&(sent.len() as u64).to_ne_bytes(), addr);
        sent.push(Instant::now());
        next = (next + PERIOD).max(Instant::now());
        while Instant::now() < next {
            collect(&socket, &sent, record)?;
            thread::sleep(Duration::from_micros(200).min(next.saturating_duration_since(Instant::now())));
        }
    }
    Ok(())
}

fn collect(socket: &UdpSocket, sent: &[Instant], record: &Mutex<Vec<Instant>>) -> Result<()> {
    let mut bytes = [0; 8];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok(_) => {
                let place = usize::try_from(u64::from_ne_bytes(bytes)).unwrap_or(usize::MAX);
                let when = sent.get(place).copied().filter(|sent| sent.elapsed() <= ANSWER_MAX);
                if let Some(when) = when {
                    let mut answered = record.lock().unwrap_or_else(PoisonError::into_inner);
                    // Two answers may overtake one another.
                    let at = answered.partition_point(|earlier| *earlier < when);
                    answered.insert(at, when);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A refused datagram, told by ICMP: nobody listens there at the moment.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable) => {}
            Err(source) => return Err(LabError::Io { action: "read answers".to_owned(), source }),
        }
    }
}
