use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::*;
use crate::identity::testing::{TestAuthority, shop};

const LIFE: Duration = Duration::from_secs(1000);

/// An authority whose time is tokio's, that can be away, and that counts.
struct Source {
    authority: TestAuthority,
    clock: Clock,
    away: AtomicBool,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Source {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

impl CertificateSource for Source {
    fn fetch<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<WorkloadCertificate, ca_client::Error>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            sleep(Duration::from_millis(100)).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) {
                return Err(ca_client::Error::Timeout {
                    address: "ca:15012".to_owned(),
                    what: "answer",
                    after: Duration::from_secs(10),
                });
            }
            let now = (self.clock)();
            Ok(self.authority.issue_at(identity, now, LIFE, &[]))
        })
    }
}

fn cache() -> (Certificates, Arc<Source>) {
    cache_with(Arc::default())
}

/// With a clock that is so many seconds ahead.
fn cache_with(ahead: Arc<AtomicU64>) -> (Certificates, Arc<Source>) {
    let (system, tokio) = (SystemTime::now(), Instant::now());
    let ahead = move || Duration::from_secs(ahead.load(Ordering::SeqCst));
    let clock: Clock = Arc::new(move || system + tokio.elapsed() + ahead());
    let source = Arc::new(Source {
        authority: TestAuthority::new(),
        clock: Arc::clone(&clock),
        away: AtomicBool::new(false),
        asked: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
        most_at_once: AtomicUsize::new(0),
    });
    let shared: Arc<dyn CertificateSource> = source.clone();
    (Certificates::with_clock(shared, clock), source)
}

fn state(certificates: &Certificates) -> CertificateState {
    let mut states = certificates.states();
    assert_eq!(states.len(), 1);
    states.remove(0)
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_cause_one_fetch() {
    let (certificates, source) = cache();
    let web = shop("web");
    let all = (0..50).map(|_| certificates.certificate(&web));
    let serials: Vec<String> = futures::future::join_all(all)
        .await
        .into_iter()
        .map(|certificate| certificate.unwrap().serial().to_owned())
        .collect();
    assert!(serials.iter().all(|serial| *serial == serials[0]));
    assert_eq!(source.asked(), 1);
    assert_eq!(certificates.cached(&web).unwrap().serial(), serials[0]);
}

#[tokio::test(start_paused = true)]
async fn fetches_at_one_time_are_bounded() {
    let (certificates, source) = cache();
    let identities: Vec<Identity> = (0..40).map(|number| shop(&format!("w{number}"))).collect();
    for identity in &identities {
        certificates.prefetch(identity).unwrap();
    }
    for identity in &identities {
        certificates.certificate(identity).await.unwrap();
    }
    assert_eq!(source.most_at_once.load(Ordering::SeqCst), MAX_FETCHES);
    assert_eq!(source.asked(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_of_its_life() {
    let (certificates, source) = cache();
    let mut renewals = certificates.renewals();
    let first = certificates.certificate(&shop("web")).await.unwrap();
    // The first one is no renewal.
    assert!(renewals.try_recv().is_err());
    // Jitter is a tenth of the half.
    sleep(Duration::from_secs(448)).await;
    assert_eq!(source.asked(), 1);
    sleep(Duration::from_secs(104)).await;
    assert_eq!(source.asked(), 2);
    let second = certificates.certificate(&shop("web")).await.unwrap();
    assert_ne!(first.serial(), second.serial());
    assert_eq!(state(&certificates).renewals, 2);
    assert_eq!(renewals.try_recv(), Ok(shop("web")));
}

#[tokio::test(start_paused = true)]
async fn a_valid_certificate_outlives_failed_renewals_and_no_longer() {
    let (certificates, source) = cache();
    let first = certificates.certificate(&shop("web")).await.unwrap();
    source.set_away(true);
    sleep(Duration::from_secs(990)).await;
    let kept = certificates.certificate(&shop("web")).await.unwrap();
    assert_eq!(kept.serial(), first.serial());
    let failing = state(&certificates);
    assert!(
        failing.failures > 5 && failing.error.is_some(),
        "{failing:?}"
    );
    // Backoff bounds the attempts.
    assert!(source.asked() < 20, "{}", source.asked());

    sleep(Duration::from_secs(20)).await;
    assert!(certificates.cached(&shop("web")).is_none());
    let error = certificates.certificate(&shop("web")).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");

    // Back again: by itself, within the longest backoff.
    source.set_away(false);
    sleep(Duration::from_secs(166)).await;
    let second = certificates.certificate(&shop("web")).await.unwrap();
    assert_ne!(second.serial(), first.serial());
    assert!(state(&certificates).error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_has_a_certificate_renewed_at_once() {
    let hour = 3600;
    let ahead = Arc::new(AtomicU64::new(hour));
    let (certificates, source) = cache_with(ahead.clone());
    let web = shop("web");
    let first = certificates.certificate(&web).await.unwrap();

    let begun = Instant::now();
    ahead.store(2 * hour, Ordering::SeqCst);
    let second = certificates.certificate(&web).await.unwrap();
    assert_ne!(first.serial(), second.serial());
    assert!(begun.elapsed() < Duration::from_secs(1));

    // What isn't valid yet may be so by others' clocks: it is used until there is another.
    ahead.store(0, Ordering::SeqCst);
    let kept = certificates.certificate(&web).await.unwrap();
    assert_eq!(kept.serial(), second.serial());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(source.asked(), 3);
    certificates.certificate(&web).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(source.asked(), 3, "it is renewed once");
}

#[tokio::test(start_paused = true)]
async fn the_first_certificate_is_waited_for_over_failures() {
    let (certificates, source) = cache();
    source.set_away(true);
    let back = async {
        sleep(Duration::from_secs(3)).await;
        source.set_away(false);
    };
    let web = shop("web");
    let (certificate, ()) = tokio::join!(certificates.certificate(&web), back);
    assert_eq!(*certificate.unwrap().identity(), web);
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_with_the_last_failure() {
    let (certificates, source) = cache();
    source.set_away(true);
    let begun = Instant::now();
    let error = certificates.certificate(&shop("web")).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), FIRST_ISSUE_TIMEOUT.as_secs());
    assert!(error.to_string().contains("ca:15012"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_identity_is_renewed_no_more_and_its_waiters_are_told() {
    let (certificates, source) = cache();
    certificates.certificate(&shop("stays")).await.unwrap();
    let gone = shop("gone");
    let forget = async {
        sleep(Duration::from_millis(50)).await;
        certificates.retain(|identity| *identity == shop("stays"));
    };
    let (waited, ()) = tokio::join!(certificates.certificate(&gone), forget);
    assert!(matches!(waited, Err(Error::Forgotten { .. })), "{waited:?}");
    assert_eq!(state(&certificates).identity, shop("stays"));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(source.asked(), 3, "two first certificates and one renewal");
}

#[tokio::test(start_paused = true)]
async fn identities_are_bounded() {
    let (certificates, source) = cache();
    source.set_away(true);
    for number in 0..MAX_IDENTITIES {
        certificates.prefetch(&shop(&format!("w{number}"))).unwrap();
    }
    let error = certificates.prefetch(&shop("one-more")).unwrap_err();
    assert!(matches!(error, Error::TooMany { .. }), "{error}");
    certificates.prefetch(&shop("w0")).unwrap();
}
