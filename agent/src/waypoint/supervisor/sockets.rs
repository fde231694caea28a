//! What the waypoints of a node listen at.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{proxy::listener, takeover::Inherited};

/// Listening sockets that are kept open for waypoints; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sockets(Arc<Mutex<BTreeMap<SocketAddr, Arc<TcpListener>>>>);

impl Sockets {
    /// With what is left of a predecessor's.
    #[must_use]
    pub fn new(inherited: Inherited) -> Self {
        let all = inherited.into_all().into_iter();
        let by_address = all.filter_map(|socket| Some((socket.local_addr().ok()?, socket.into())));
        Self(Arc::new(Mutex::new(by_address.collect())))
    }

    /// A copy of each, for a successor.
    #[must_use]
    pub fn share(&self) -> Vec<OwnedFd> {
        let sockets = self.all();
        // One that can't be copied is bound anew, once it is closed here.
        let copies = sockets
            .values()
            .map(|socket| socket.as_fd().try_clone_to_owned());
        copies.filter_map(Result::ok).collect()
    }

    /// The one that is bound to an address, opened if there is none.
    ///
    /// # Errors
    /// The kernel's refusal, with the address.
    pub(super) fn open(&self, address: SocketAddr) -> io::Result<Arc<TcpListener>> {
        let mut sockets = self.all();
        if let Some(socket) = sockets.get(&address) {
            return Ok(socket.clone());
        }
        let socket = Arc::new(listener::others(address)?);
        sockets.insert(address, socket.clone());
        Ok(socket)
    }

    /// Closes all others.
    pub(super) fn keep(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let wanted: BTreeSet<_> = addresses.into_iter().collect();
        self.all().retain(|address, _| wanted.contains(address));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<TcpListener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn what_waits_outlives_whoever_was_to_accept_it_and_goes_with_the_address() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let sockets = Sockets::new(Inherited::default());
        drop(sockets.open(address).unwrap());
        let waits = TcpStream::connect(address).unwrap();
        assert_eq!(sockets.share().len(), 1);
        let (accepted, _) = sockets.open(address).unwrap().accept().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), waits.local_addr().unwrap());
        sockets.keep([]);
        assert!(sockets.share().is_empty());
        assert!(TcpStream::connect(address).is_err());
    }
}
