//! Interfaces that packets come past.

use aya::maps::MapError;

use super::{Error, Maps, absent_is_fine, name, refused};

impl Maps {
    /// The pods' interfaces that packets come past, with the epochs in which that showed.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn past_veth(&self) -> Result<Vec<(u32, u32)>, Error> {
        let entries: Result<Vec<_>, MapError> = self.past_veth.iter().collect();
        entries.map_err(refused(name::PAST_VETH))
    }

    /// Forgets what showed of an interface that is gone.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub(super) fn forget_past_veth(&mut self, interface: u32) -> Result<(), Error> {
        absent_is_fine(self.past_veth.remove(&interface)).map_err(refused(name::PAST_VETH))
    }
}
