//! Hot: where the fence stands in a request's life. What goes to the provider is searched before anything is sent, and
//! what comes from it before the caller has it.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use policy::scan::shapes;
use policy::{CanaryKind, Denial, DenialCode, Signal};
use storage::{RiskAction, Spot};

use crate::config::Scan;
use crate::fence::{self, Fence, Finding, Part, Passed, Watched};
use crate::provider::upstream::Upstream;
use crate::request::context::{Answer, Context};
use crate::wire::{Decoder, Framing};

impl Context {
    /// Searches the request that is about to be sent.
    ///
    /// # Errors
    /// `secret_in_request` when there is a secret in it.
    pub(crate) fn search_request(
        &self,
        request: &RequestHeader,
        upstream: &Upstream,
        target: &str,
    ) -> Result<(), Denial> {
        let scan = self.snapshot.config.security.scan_requests;
        if scan == Scan::Off {
            return Ok(());
        }
        let headers = upstream.passed_headers(&request.headers).map(|(_, value)| value.as_bytes());
        let watch = self.shared.watch.load();
        let Some((part, finding)) = fence::leak(&watch, target, headers, &self.body.bytes) else {
            self.note_shapes();
            return Ok(());
        };
        if scan == Scan::Detect {
            self.found_in_request(part, &finding, RiskAction::Logged);
            return Ok(());
        }
        self.found_in_request(part, &finding, RiskAction::Refused);
        let what = match &*finding.watched {
            Watched::Key { provider } => format!("the key of `{provider}`"),
            // Whoever took a decoy is not told that it is one.
            _ => "a secret of this machine".to_owned(),
        };
        let message = format!("the request holds {what}, in its {}; nothing of it was sent", part.as_str());
        let hint = "take the secret out of the conversation; `tokfence risk status` tells what was found";
        Err(Denial::new(DenialCode::SecretInRequest, message).with_hint(hint))
    }

    /// Tells of what looks like a secret in a body that holds none of ours, once for each kind. That is no reason to
    /// refuse it: code that handles keys and its tests are full of them.
    fn note_shapes(&self) {
        let mut noted = Vec::new();
        shapes(&self.body.bytes, |shape, offset| {
            if !noted.contains(&shape) {
                noted.push(shape);
                let plain = Cow::Borrowed("plain");
                let place = Part::Body.as_str().into();
                let spot = Spot { form: plain.clone(), view: plain, place, offset: offset as u64 };
                let pattern = format!("shape:{}", shape.as_str());
                self.report_found(Signal::SecretShaped, pattern, spot, RiskAction::Logged);
            }
        });
    }

    /// Takes secrets out of the head of an answer.
    pub(crate) fn mask_head(&self, response: &mut ResponseHeader) -> pingora::Result<()> {
        let scan = self.snapshot.config.security.scan_responses;
        if scan == Scan::Off {
            return Ok(());
        }
        let reason = response.get_reason_phrase().unwrap_or_default().as_bytes();
        if !self.find_in_head(reason).is_empty() && scan == Scan::Enforce {
            response.set_reason_phrase(None)?;
        }
        for (name, values) in self.masked_fields(&response.headers)? {
            response.remove_header(&name);
            for value in values {
                response.append_header(name.clone(), value)?;
            }
        }
        Ok(())
    }

    /// Takes secrets out of the trailers of an answer.
    pub(crate) fn mask_trailers(&self, trailers: &mut HeaderMap) -> pingora::Result<()> {
        for (name, values) in self.masked_fields(trailers)? {
            trailers.remove(&name);
            values.into_iter().for_each(|value| {
                trailers.append(name.clone(), value);
            });
        }
        Ok(())
    }

    /// The fields in which a secret was found, with what they are to say instead.
    fn masked_fields(&self, fields: &HeaderMap) -> pingora::Result<Vec<(HeaderName, Vec<HeaderValue>)>> {
        let scan = self.snapshot.config.security.scan_responses;
        if scan == Scan::Off {
            return Ok(Vec::new());
        }
        let has_secret = |name: &&HeaderName| {
            let found = fields.get_all(*name).iter().map(|value| self.find_in_head(value.as_bytes()).len());
            found.sum::<usize>() > 0
        };
        let names: Vec<&HeaderName> = fields.keys().filter(has_secret).collect();
        if scan == Scan::Detect {
            return Ok(Vec::new());
        }
        names.into_iter().map(|name| Ok((name.clone(), self.masked_values(fields, name)?))).collect()
    }

    fn masked_values(&self, fields: &HeaderMap, name: &HeaderName) -> pingora::Result<Vec<HeaderValue>> {
        let watch = self.shared.watch.load();
        let masked = |value: &HeaderValue| {
            let masked = watch.masked(value.as_bytes()).unwrap_or_else(|| value.as_bytes().to_vec());
            HeaderValue::from_bytes(&masked)
        };
        let values: Result<_, _> = fields.get_all(name).iter().map(masked).collect();
        values.map_err(|_| Error::explain(ErrorType::InvalidHTTPHeader, "it cannot be masked").into_up())
    }

    fn find_in_head(&self, text: &[u8]) -> Vec<Finding> {
        let scan = self.snapshot.config.security.scan_responses;
        let findings = self.shared.watch.load().find(text);
        let action = if scan == Scan::Enforce { RiskAction::Masked } else { RiskAction::Logged };
        findings.iter().for_each(|finding| self.found_in_answer("header", finding, action));
        findings
    }

    /// Prepares to read a compressed answer: it is passed on as what it means.
    ///
    /// # Errors
    /// What the engine is told when the answer cannot be read and must not pass unread.
    pub(crate) fn decode_answer(
        &mut self,
        session: &Session,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let scan = self.snapshot.config.security.scan_responses;
        let coding = response.headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
        let is_coded = coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
        if scan == Scan::Off || !is_coded || !has_body(session, response) {
            return Ok(());
        }
        self.decoder = coding.and_then(Decoder::new);
        if self.decoder.is_some() {
            response.remove_header(&header::CONTENT_ENCODING);
            return make_chunked(response);
        }
        let action = if scan == Scan::Detect { RiskAction::Logged } else { RiskAction::Refused };
        self.shared.report(self.seen(Signal::Unscannable, action));
        if scan == Scan::Detect {
            return Ok(());
        }
        let message = "the provider's answer is in a coding that cannot be read, although none was asked for";
        self.failure = Some(Denial::new(DenialCode::UpstreamReset, message));
        Err(Error::explain(ErrorType::InvalidHTTPHeader, "an answer that cannot be read").into_up())
    }

    /// Sets the fence up before the body of an answer.
    pub(crate) fn begin_fence(
        &mut self,
        session: &Session,
        response: &mut ResponseHeader,
    ) -> pingora::Result<()> {
        let scan = self.snapshot.config.security.scan_responses;
        let watch = self.shared.watch.load_full();
        if scan == Scan::Off || watch.is_empty() || !has_body(session, response) {
            return Ok(());
        }
        let content_type = response.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let framing = content_type.and_then(Framing::from_content_type);
        let can_stop = self.shown.seam.is_some();
        if can_stop && scan == Scan::Enforce {
            make_chunked(response)?;
        }
        self.fence = Some(Box::new(Fence::new(watch, framing, scan == Scan::Enforce, can_stop)));
        Ok(())
    }

    /// What a chunk of the answer means.
    ///
    /// # Errors
    /// What the engine is told when it means nothing, or too much.
    pub(crate) fn decode(&mut self, chunk: Option<Bytes>) -> pingora::Result<Option<Bytes>> {
        let (Some(decoder), Some(bytes)) = (&mut self.decoder, &chunk) else { return Ok(chunk) };
        let decoded = decoder.decode(bytes).map_err(|_| {
            let message = "the provider's answer is not what its Content-Encoding says";
            self.failure = Some(Denial::new(DenialCode::UpstreamReset, message));
            Error::explain(ErrorType::InternalError, "an answer that cannot be read").into_up()
        })?;
        Ok((!decoded.is_empty()).then_some(decoded))
    }

    /// What the caller may have of the answer after this chunk.
    pub(crate) fn fence(&mut self, session: &Session, chunk: Option<Bytes>, is_end: bool) -> Option<Bytes> {
        let Some(fence) = &mut self.fence else { return chunk };
        let Passed { bytes, findings, must_stop } = fence.pass(chunk, is_end);
        for finding in &findings {
            let action = match self.snapshot.config.security.scan_responses {
                Scan::Off | Scan::Detect => RiskAction::Logged,
                Scan::Enforce if must_stop && finding.watched.is_canary() => RiskAction::Cut,
                Scan::Enforce => RiskAction::Masked,
            };
            self.found_in_answer("body", finding, action);
        }
        if must_stop { self.stop(session, bytes, is_end) } else { bytes }
    }

    /// Ends an answer of which the rest may not be shown. What the provider has ended already, nobody else will end.
    fn stop(&mut self, session: &Session, bytes: Option<Bytes>, is_end: bool) -> Option<Bytes> {
        let message = "the answer was about to tell what must not leave this machine";
        let denial = Denial::new(DenialCode::RiskRestricted, message).with_hint("tokfence risk status");
        if !is_end {
            self.cut(denial);
            return bytes;
        }
        self.answer = Answer::Cut(denial.code());
        let mut shown = bytes.unwrap_or_default().to_vec();
        if let Some(seam) = &mut self.shown.seam {
            seam.follow(&shown);
        }
        shown.extend_from_slice(&self.ending(session, &denial).unwrap_or_default());
        self.shown.seam = None;
        Some(shown.into())
    }

    fn found_in_request(&self, part: Part, finding: &Finding, action: RiskAction) {
        let signal = match &*finding.watched {
            Watched::Key { .. } => Signal::SecretInRequest,
            Watched::Canary { kind: CanaryKind::Vault, .. } => Signal::VaultCanary,
            Watched::Canary { kind: CanaryKind::Decoy | CanaryKind::Prompt, .. } => Signal::DecoyInRequest,
        };
        self.found(signal, part.as_str(), finding, action);
    }

    fn found_in_answer(&self, place: &'static str, finding: &Finding, action: RiskAction) {
        let signal = match &*finding.watched {
            Watched::Key { .. } => Signal::KeyEcho,
            Watched::Canary { kind: CanaryKind::Vault, .. } => Signal::VaultCanary,
            Watched::Canary { kind: CanaryKind::Decoy, .. } => Signal::DecoyInResponse,
            Watched::Canary { kind: CanaryKind::Prompt, .. } => Signal::PromptMarkInResponse,
        };
        self.found(signal, place, finding, action);
    }

    fn found(&self, signal: Signal, place: &'static str, finding: &Finding, action: RiskAction) {
        let spot = Spot {
            form: finding.form.as_str().into(),
            view: finding.view.as_str().into(),
            place: place.into(),
            offset: finding.offset,
        };
        self.report_found(signal, finding.watched.pattern(), spot, action);
    }
}

/// Whether an answer has a body at all.
fn has_body(session: &Session, response: &ResponseHeader) -> bool {
    let status = response.status;
    session.req_header().method != http::Method::HEAD
        && status != http::StatusCode::NO_CONTENT
        && status != http::StatusCode::NOT_MODIFIED
}

/// Makes it possible that an answer has another length than was told.
pub(crate) fn make_chunked(response: &mut ResponseHeader) -> pingora::Result<()> {
    if response.remove_header(&header::CONTENT_LENGTH).is_some() {
        response.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}
