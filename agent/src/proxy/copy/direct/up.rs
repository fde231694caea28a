//! From the application into the tunnel.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    mem,
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::{io::Interest, net::TcpStream};

use super::read_some;
use crate::{
    channel::{Buffer, HEADER, Keys, MAX_CONTENT, RECORD, RECORDS, TRAILER},
    direct::Kind,
    proxy::copy::{CopyError, ResetOnDrop, TcpSide},
    splice::Leg,
    telemetry::Transfer,
};

/// Where the application's bytes are in a record: behind the frame's kind.
const DATA: usize = HEADER + 1;
/// How many there are in a full one.
const MAX_DATA: usize = MAX_CONTENT - 1;
/// Where the records of a buffer begin: in front of them there is room for a change of the key.
const FIRST: usize = Keys::UPDATE_RECORD;
/// Records that are made at once: one less than a buffer has, since they don't begin at its start.
const BATCH: usize = RECORDS - 1;
/// How many bytes are read at once.
const ROOM: usize = BATCH * MAX_DATA;
/// After so many reads that didn't fill a record only one is read into: places for a batch cost the kernel as much
/// as a short message's bytes.
const SHORT_READS: u32 = 4;

/// What the application says.
pub(super) struct Up<'a> {
    tcp: &'a TcpStream,
    leg: &'a Leg,
    tunnel: &'a TcpStream,
    side: TcpSide,
    transfer: &'a Transfer,
    /// Sealed records that the tunnel hasn't taken yet.
    outgoing: Option<Outgoing>,
    has_sent: bool,
    /// Reads in a row that didn't fill a record.
    short_reads: u32,
    /// How the application has ended, told once everything before it has gone.
    end: Option<io::Result<()>>,
}

struct Outgoing {
    buffer: Buffer,
    start: usize,
    end: usize,
    /// Bytes of the application in it.
    data: usize,
}

impl<'a> Up<'a> {
    pub(super) fn new(
        tcp: &'a ResetOnDrop,
        tunnel: &'a TcpStream,
        side: TcpSide,
        transfer: &'a Transfer,
    ) -> Self {
        Self {
            tcp: &tcp.stream,
            leg: &tcp.leg,
            tunnel,
            side,
            transfer,
            outgoing: None,
            has_sent: false,
            // Most say little first.
            short_reads: SHORT_READS,
            end: None,
        }
    }

    /// Whether it waits for the tunnel, and so doesn't read from the application.
    pub(super) fn is_blocked(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Whether something has gone into the tunnel.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Goes on until the application has ended and the tunnel has taken everything.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        keys: &mut Keys,
    ) -> Poll<Result<(), CopyError>> {
        loop {
            ready!(self.poll_outgoing(context))?;
            if let Some(end) = &mut self.end {
                let end = mem::replace(end, Ok(()));
                return Poll::Ready(end.map_err(|error| self.side.error(error)));
            }
            ready!(self.tcp.poll_read_ready(context)).map_err(|error| self.side.error(error))?;
            let mut buffer = Buffer::take();
            let room = if self.short_reads < SHORT_READS {
                ROOM
            } else {
                MAX_DATA
            };
            let data = match read_records(self.tcp, &mut buffer, room) {
                Ok(data) => data,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Poll::Ready(Err(self.side.error(error))),
            };
            self.leg.has_read(self.tcp, data);
            self.short_reads = if data < MAX_DATA {
                self.short_reads.saturating_add(1)
            } else {
                0
            };
            self.end = match data {
                0 => Some(Ok(())),
                // One that has come already goes with what came before it.
                1.. if data < room => end(self.tcp),
                _ => None,
            };
            let is_end = matches!(self.end, Some(Ok(())));
            self.outgoing = Some(seal(buffer, data, is_end, keys)?);
        }
    }

    fn poll_outgoing(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CopyError>> {
        while let Some(outgoing) = &mut self.outgoing {
            ready!(self.tunnel.poll_write_ready(context)).map_err(CopyError::tunnel)?;
            match self
                .tunnel
                .try_write(&outgoing.buffer[outgoing.start..outgoing.end])
            {
                Ok(written) => {
                    self.has_sent = true;
                    outgoing.start += written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(CopyError::tunnel(error))),
            }
            if outgoing.start == outgoing.end {
                self.side.count_up(self.transfer, outgoing.data);
                self.outgoing = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads into the places that records have for data, of one or of a batch.
fn read_records(tcp: &TcpStream, buffer: &mut [u8], room: usize) -> io::Result<usize> {
    if room == MAX_DATA {
        let place = &mut buffer[FIRST + DATA..][..MAX_DATA];
        return read_some(tcp, MAX_DATA, || Ok(rustix::io::read(tcp, place)?));
    }
    let mut records = buffer[FIRST..].chunks_exact_mut(RECORD);
    let mut slices: [IoSliceMut<'_>; BATCH] = std::array::from_fn(|_| {
        let record = records.next().expect("a buffer has room for a batch");
        IoSliceMut::new(&mut record[DATA..][..MAX_DATA])
    });
    read_some(tcp, ROOM, || Ok(rustix::io::readv(tcp, &mut slices)?))
}

/// How nothing more comes, if nothing is left to read: by an end or a failure, which is told only once. Costs no
/// system call before the other end has closed.
fn end(tcp: &TcpStream) -> Option<io::Result<()>> {
    let ready = pin!(tcp.ready(Interest::READABLE));
    match ready.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(ready)) if ready.is_read_closed() => {}
        _ => return None,
    }
    match recv(tcp, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Some(Ok(())),
        Ok(_) | Err(Errno::AGAIN) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Makes records of that many bytes, and one that says the end, if this is it. In front of an end there are less
/// bytes than a buffer has room for.
fn seal(
    mut buffer: Buffer,
    data: usize,
    is_end: bool,
    keys: &mut Keys,
) -> Result<Outgoing, CopyError> {
    let mut start = FIRST;
    if keys.is_update_due() {
        let update = buffer
            .first_chunk_mut()
            .expect("a buffer is longer than one record");
        keys.update(update).map_err(CopyError::Tls)?;
        start = 0;
    }
    let (mut end, mut rest) = (FIRST, data);
    let mut record = |kind: Kind, length: usize| {
        let record = &mut buffer[end..][..DATA + length + TRAILER];
        record[HEADER] = kind as u8;
        keys.seal(record);
        end += record.len();
    };
    while rest > 0 {
        let now = rest.min(MAX_DATA);
        record(Kind::Data, now);
        rest -= now;
    }
    if is_end {
        record(Kind::End, 0);
    }
    Ok(Outgoing {
        buffer,
        start,
        end,
        data,
    })
}
