//! A request on its way to an endpoint, as often as it takes.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::SET_COOKIE, request};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    super::{
        resilience::{Admitted, BackendState, Choice, Chosen, Hash, RetryPlace, Verdict, hash_of},
        target::Target,
    },
    body::{End, RequestBody, ResponseBody, Source},
    exchange::Exchange,
    headers,
    plan::Matched,
    reply::Reply,
    tries::{Tried, Tries, overloaded},
    under_way::{self, Case, Head, Ongoing, UnderWay},
    upgrade::Upgrade,
    upstream::{SendError, UpstreamBody, Version},
};
use crate::{
    discovery::model::Service,
    telemetry::{
        RequestFlags,
        requests::{GrpcStatus, Upstream},
    },
};

/// A request that is ready to go.
pub(super) struct Forward<'a> {
    pub(super) exchange: &'a mut Exchange,
    /// As it was admitted.
    pub(super) asked: &'a Arc<Head>,
    pub(super) matched: Option<&'a Matched>,
    pub(super) version: Version,
    pub(super) source: Source,
    pub(super) is_idempotent: bool,
    pub(super) upgrade: Option<Upgrade>,
}

impl Forward<'_> {
    /// Sends it to a workload, once.
    ///
    /// # Errors
    /// What the client is answered instead.
    pub(super) async fn ask_workload(
        mut self,
        parts: request::Parts,
        address: SocketAddr,
    ) -> Result<Response<ResponseBody>, Reply> {
        let target = self.exchange.way_to(address);
        self.exchange.decide(&target, &parts)?;
        self.tell(&target, None);
        let ongoing = self.enter(&target, &parts);
        let request = Request::from_parts(parts, self.source.body());
        match self.once(&ongoing, &target, None, request, None).await {
            Tried::Answered(answer) => Ok(self.answered(*answer, ongoing, None, None)),
            failed => Err(self.reply(failed)),
        }
    }

    /// Sends it to an endpoint of a service, and to others, as far as that is allowed.
    ///
    /// # Errors
    /// What the client is answered instead.
    pub(super) async fn ask_service(
        mut self,
        parts: request::Parts,
        service: &Arc<Service>,
        port: u16,
    ) -> Result<Response<ResponseBody>, Reply> {
        let waypoint = self.exchange.client.waypoint.clone();
        let policy = self
            .exchange
            .snapshot
            .traffic_policy_of_service(&service.name, port);
        let state = waypoint.resilience.backend(&service.name, port, policy);
        let admitted = state.admit(now()).map_err(overloaded)?;
        let client = self.exchange.client.source_address.ip();
        let hash = hash_of(&state.policy(), &parts.headers, client, rand::random());
        let tries = self.tries();
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut retried: Option<RetryPlace> = None;
        let mut parts = parts;
        loop {
            let chosen = self
                .exchange
                .choose(&state, service, port, hash.as_ref(), &tried)?;
            tried.push(chosen.address);
            let target = self.exchange.way_to(chosen.address);
            self.exchange.decide(&target, &parts)?;
            self.tell(&target, Some(service));
            let ongoing = self.enter(&target, &parts);
            let until = tries.deadline();
            let request = Request::from_parts(parts, self.source.body());
            let sending = self.once(&ongoing, &target, Some(&state), request, until);
            let mut outcome = sending.await;
            let again = tries.again(&outcome, tried.len(), &self.source);
            if let Some(retried) = retried.take() {
                retried.finished(!again && matches!(outcome, Tried::Answered(..)));
            }
            let spare = || tries.may_repeat.then(|| ongoing.sent().clone());
            let whole = again
                .then(|| outcome.take_unsent().or_else(spare))
                .flatten();
            let place = again.then(|| state.may_retry(now()).ok()).flatten();
            let (Some(whole), Some(place)) = (whole, place) else {
                let exhausted = match tried.len() {
                    1 => RequestFlags::NONE,
                    _ => RequestFlags::RETRIES_EXHAUSTED,
                };
                return match outcome {
                    Tried::Answered(answer) => {
                        let held = Some((chosen, admitted));
                        let mut response = self.answered(*answer, ongoing, held, until);
                        if let Some(cookie) = hash.and_then(|hash| hash.set_cookie) {
                            response.headers_mut().append(SET_COOKIE, cookie);
                        }
                        Ok(response)
                    }
                    failed => {
                        finish(chosen, failed.verdict());
                        Err(self.reply(failed).flagged(exhausted))
                    }
                };
            };
            finish(chosen, outcome.verdict());
            drop(outcome);
            retried = Some(place);
            parts = whole;
            sleep(tries.pause(tried.len())).await;
            if !self.source.is_whole() {
                // The server that is done with it has read on meanwhile.
                let broken = Tried::Broken("its body can't be sent again".to_owned());
                return Err(self.reply(broken));
            }
        }
    }

    /// Enters a try among the requests that are under way.
    fn enter(&self, target: &Target, parts: &request::Parts) -> Ongoing {
        let exchange = &self.exchange;
        let case = Case {
            client: exchange.client.clone(),
            token: exchange.token.clone(),
            asked: self.asked.clone(),
            sent: under_way::copy(parts),
            target: target.clone(),
            source: self.source.clone(),
        };
        UnderWay::enter(case, &exchange.snapshot)
    }

    /// What the client is answered where no server has.
    fn reply(&mut self, failed: Tried) -> Reply {
        failed.reply(|revoked| self.exchange.revoked(revoked, &self.asked.parts))
    }

    fn tries(&self) -> Tries {
        let rule = self.matched.map(|matched| &matched.rule);
        let timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
        let retry = rule.and_then(|rule| rule.retry.clone());
        let is_repeatable = self.is_idempotent && self.source.is_empty();
        Tries {
            whole: timeouts.request.map(|limit| Instant::now() + limit),
            each: timeouts.backend_request,
            may_repeat: self.upgrade.is_none() && (retry.is_some() || is_repeatable),
            retry,
        }
    }

    /// Says where it goes.
    fn tell(&mut self, target: &Target, service: Option<&Arc<Service>>) {
        let Some(report) = &mut self.exchange.report else {
            return;
        };
        report.attempt(Upstream {
            service: service.map(|service| service.name.clone()),
            workload: target.route.workload().cloned(),
            identity: target.enrolled().map(|it| it.identity.clone()),
            address: target.address,
        });
    }

    async fn once(
        &self,
        ongoing: &Ongoing,
        target: &Target,
        state: Option<&Arc<BackendState>>,
        request: Request<RequestBody>,
        until: Option<Instant>,
    ) -> Tried {
        let waypoint = &self.exchange.client.waypoint;
        let sending = waypoint
            .upstreams
            .send(waypoint, target, self.version, state, request);
        let in_time = async {
            match until {
                None => Some(sending.await),
                Some(until) => timeout_at(until, sending).await.ok(),
            }
        };
        let sent = tokio::select! {
            biased;
            revoked = ongoing.revoked() => return Tried::Revoked(Box::new(revoked)),
            sent = in_time => sent,
        };
        let Some(sent) = sent else {
            return Tried::Late;
        };
        match sent {
            Ok(answer) if self.switches_unasked(answer.status()) => {
                Tried::Broken("the server switched protocols unasked".to_owned())
            }
            Ok(answer) => Tried::Answered(Box::new(answer)),
            Err(SendError::Connect { error, unsent }) => {
                Tried::Unsent(Some(Box::new(unsent.into_parts().0)), error.to_string())
            }
            Err(SendError::Overloaded(overload)) => Tried::Overloaded(overload),
            Err(SendError::Closed(error)) => Tried::Broken(error.to_string()),
        }
    }

    /// Whether a server says that its connection isn't HTTP any more, and nobody has asked for that.
    fn switches_unasked(&self, status: StatusCode) -> bool {
        let upgrade = self.upgrade.as_ref();
        status == StatusCode::SWITCHING_PROTOCOLS
            && !upgrade.is_some_and(|upgrade| upgrade.is_granted(status))
    }

    /// The answer on its way to the client, which takes along what ends with it.
    fn answered(
        self,
        response: Response<UpstreamBody>,
        ongoing: Ongoing,
        held: Option<(Chosen, Admitted)>,
        until: Option<Instant>,
    ) -> Response<ResponseBody> {
        let (mut parts, mut body) = response.into_parts();
        let protocol = headers::upgrade_of(&parts.headers);
        headers::remove_hop_by_hop(&mut parts.headers);
        let exchange = self.exchange;
        let Some(mut report) = exchange.report.take() else {
            // It is there until it is taken, here.
            return Response::from_parts(parts, ResponseBody::own(Bytes::new()));
        };
        report.responded(parts.status);
        if !self.source.has_ended() {
            body.detach();
        }
        let (chosen, admitted) = held.unzip();
        let end = End {
            report,
            ongoing,
            chosen,
            admitted,
            status: parts.status,
            grpc_status: GrpcStatus::of(&parts.headers),
        };
        if let Some(upgrade) = self.upgrade
            && upgrade.is_granted(parts.status)
        {
            let guard = exchange.guard.clone();
            upgrade.grant(&exchange.client, guard, &mut parts, protocol, (body, end));
            return Response::from_parts(parts, ResponseBody::own(Bytes::new()));
        }
        let body = ResponseBody::passed(body, until, end);
        Response::from_parts(parts, body)
    }
}

impl Exchange {
    /// An endpoint of a service.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn choose(
        &self,
        state: &Arc<BackendState>,
        service: &Service,
        port: u16,
        hash: Option<&Hash>,
        tried: &[SocketAddr],
    ) -> Result<Chosen, Reply> {
        let client = &self.client;
        let choice = Choice {
            candidates: &service.candidates(client.node(), port),
            zone: self
                .snapshot
                .zone_of_node(&client.waypoint.node)
                .map(|it| &**it),
            distribution: service.traffic_distribution,
            hash: hash.map(|hash| hash.value),
            tried,
            now: now(),
            random: rand::random(),
        };
        state.choose(&choice).ok_or_else(|| {
            Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream")
                .flagged(RequestFlags::NO_HEALTHY_UPSTREAM)
                .because(format!("service {} has no ready endpoint", service.name))
        })
    }
}

fn finish(chosen: Chosen, verdict: Option<Verdict>) {
    if let Some(verdict) = verdict {
        chosen.finished(verdict, now());
    }
}

fn now() -> std::time::Instant {
    std::time::Instant::now()
}
