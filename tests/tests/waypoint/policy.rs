//! Who may connect, and who decides.
