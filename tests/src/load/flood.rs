//! Clients that mean harm.

use std::{net::SocketAddr, time::Duration};

use crate::{Child, Place, Result};

/// How long it may take to try each connection once.
const BEGIN: Duration = Duration::from_secs(30);

/// What each connection of a [`Flood`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Says nothing.
    Silent,
    /// Says what is no protocol.
    Garbage,
    /// Says a head of HTTP, five bytes a second.
    DripHead,
    /// Says a TLS ClientHello, five bytes a second.
    DripHello,
    /// Asks for page after page, and reads none.
    Unread,
}

impl Harm {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Silent,
        Self::Garbage,
        Self::DripHead,
        Self::DripHello,
        Self::Unread,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Garbage => "garbage",
            Self::DripHead => "drip-head",
            Self::DripHello => "drip-hello",
            Self::Unread => "unread",
        }
    }
}

/// Many connections that are opened again when they are ended, until this is dropped.
#[derive(Debug)]
pub struct Flood {
    _child: Child,
}

impl Flood {
    /// Begins one of up to 20,000 `connections` at once to `targets`, in turns, and of `opens` in all. Returns
    /// when each connection was tried once.
    ///
    /// # Errors
    /// If `lab-load` isn't built, or doesn't begin in time.
    pub fn start(
        place: &Place,
        harm: Harm,
        targets: &[SocketAddr],
        connections: u16,
        opens: u32,
    ) -> Result<Self> {
        let mut arguments = vec!["flood".to_owned(), "--harm".into(), harm.as_str().into()];
        for target in targets {
            arguments.extend(["--connect".into(), target.to_string()]);
        }
        arguments.extend(["--connections".into(), connections.to_string()]);
        arguments.extend(["--opens".into(), opens.to_string()]);
        let mut child = place.spawn(place.own_program("lab-load")?, arguments)?;
        child.await_stdout(BEGIN, |line| line.contains("flooding"))?;
        Ok(Self { _child: child })
    }
}
