//! HBONE: HTTP/2 CONNECT over mutual TLS, as Istio ambient speaks it.
