//! Interim responses (RFC 9110, 15.2): 103 Early Hints and others that come before the final one, passed on by whoever
//! reads the endpoint's answer to whoever writes to the client. Both run in one task, the request's: what is noted while
//! the request's future is polled is taken when that poll returns, so no waker is needed.
//!
//! Not here: `100 Continue`, which each sidecar sees to by itself (`h1`), and 101, which ends HTTP (`upgrade`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};

use crate::headers;

/// The interim responses of one request, on their way to its client.
#[derive(Default)]
pub struct Interim {
    /// Allocates nothing while there are none.
    waiting: RefCell<VecDeque<Response<()>>>,
    noted: Cell<usize>,
}

/// How many of one request are passed on, over all its tries.
const NOTED_MAX: usize = 16;

impl Interim {
    /// Passes it on, cleared of what is not for the next hop and of what only a proxy may say. Those that end here, and those
    /// beyond the limit, are passed over.
    pub(crate) fn note(&self, mut response: Response<()>) {
        if !goes_on(response.status()) || self.noted.get() == NOTED_MAX {
            return;
        }
        self.noted.set(self.noted.get() + 1);
        headers::go_back(&mut response, false);
        response.headers_mut().remove(CONTENT_LENGTH); // RFC 9110, 8.6
        self.waiting.borrow_mut().push_back(response);
    }

    /// The next one to be written, in their order.
    pub(crate) fn take(&self) -> Option<Response<()>> {
        self.waiting.borrow_mut().pop_front()
    }

    /// How many there were.
    pub(crate) fn noted(&self) -> usize {
        self.noted.get()
    }
}

fn goes_on(status: StatusCode) -> bool {
    let ends_here = matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
    status.is_informational() && !ends_here
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&str, &str)]) -> Response<()> {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).unwrap()
    }

    /// A response as a row writes it.
    fn told(response: &Response<()>) -> String {
        let mut text = response.status().as_str().to_owned();
        for (name, value) in response.headers() {
            text += &format!(" {name}={}", value.to_str().unwrap());
        }
        text
    }

    #[test]
    fn what_goes_on_is_interim_and_says_nothing_of_a_hop_a_length_or_a_proxy() {
        for (what, status, fields, wanted) in [
            ("early hints", 103, &[("link", "a"), ("link", "b")][..], Some("103 link=a link=b")),
            ("nothing but a status", 102, &[], Some("102")),
            ("one that is not known", 199, &[("a", "b")], Some("199 a=b")),
            (
                "what is for one hop",
                103,
                &[("connection", "x-hop"), ("x-hop", "1"), ("upgrade", "x"), ("keep-alive", "5")],
                Some("103"),
            ),
            (
                "the length of a body that does not come",
                103,
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                Some("103"),
            ),
            (
                "what a proxy says",
                103,
                &[("gauze-error", "M3001"), ("gauze-not-delivered", "true"), ("a", "b")],
                Some("103 a=b"),
            ),
            ("100, which each hop sees to", 100, &[], None),
            ("101, which is final", 101, &[("upgrade", "x")], None),
            ("a final one", 200, &[], None),
        ] {
            let interim = Interim::default();
            interim.note(response(status, fields));
            assert_eq!(interim.take().as_ref().map(told).as_deref(), wanted, "{what}");
            assert_eq!(interim.noted(), usize::from(wanted.is_some()), "{what}");
        }
    }

    #[test]
    fn no_more_than_the_limit_go_on_whether_they_were_taken_in_between_or_not() {
        for takes_between in [false, true] {
            let interim = Interim::default();
            let mut taken = Vec::new();
            for number in 0..NOTED_MAX + 4 {
                interim.note(response(103, &[("n", &number.to_string())]));
                taken.extend(takes_between.then(|| interim.take()).flatten());
            }
            taken.extend(std::iter::from_fn(|| interim.take()));
            let wanted: Vec<_> = (0..NOTED_MAX).map(|number| format!("103 n={number}")).collect();
            assert_eq!(taken.iter().map(told).collect::<Vec<_>>(), wanted);
        }
    }
}
