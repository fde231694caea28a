//! Types that the agent and its eBPF programs share, and decisions both can make.
#![no_std]
