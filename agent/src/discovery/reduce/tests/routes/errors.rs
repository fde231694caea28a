use super::*;

#[test]
fn what_can_not_be_is_told_with_its_field_and_the_cure() {
    let http: &[(&str, &str)] = &[
        (
            "{matches: [{path: {value: a}}]}",
            "spec.rules[0].matches[0].path.value: \"a\" must begin with \"/\"",
        ),
        (
            "{}, {matches: [{}, {path: {value: /a//b}}]}",
            "spec.rules[1].matches[1].path.value: \"/a//b\" must not contain \"//\"",
        ),
        (
            "{matches: [{path: {type: Exact, value: /a%2Fb}}]}",
            "is of no use: the path has an escaped slash",
        ),
        (
            "{matches: [{path: {value: /a/..}}]}",
            "must not contain \"/../\"",
        ),
        (
            "{matches: [{path: {type: Glob}}]}",
            "spec.rules[0].matches[0].path.type: \"Glob\" is not \"Exact\"",
        ),
        (
            "{matches: [{path: {type: RegularExpression, value: '('}}]}",
            "matches[0].path.value: \"(\" can't be used as a regular expression: unclosed group",
        ),
        (
            "{matches: [{path: {type: RegularExpression, value: 'a)|(b'}}]}",
            "unopened group",
        ),
        (
            "{matches: [{path: {type: RegularExpression, value: '\\w{900}{900}'}}]}",
            "can't be used as a regular expression",
        ),
        (
            "{matches: [{method: get}]}",
            "spec.rules[0].matches[0].method: \"get\" is not one of GET",
        ),
        (
            "{matches: [{headers: [{name: 'a b', value: x}]}]}",
            "spec.rules[0].matches[0].headers[0].name: \"a b\" is not a header's name",
        ),
        (
            "{matches: [{headers: [{name: a}]}]}",
            "spec.rules[0].matches[0].headers[0].value: is missing",
        ),
        (
            "{matches: [{queryParams: [{value: a}]}]}",
            "spec.rules[0].matches[0].queryParams[0].name: is missing",
        ),
        (
            "{backendRefs: [{name: web}]}",
            "spec.rules[0].backendRefs[0].port: is missing",
        ),
        (
            "{backendRefs: [{name: web, port: 0}]}",
            "spec.rules[0].backendRefs[0].port: \"0\" is not a port",
        ),
        (
            "{backendRefs: [{name: web, port: 80, weight: 1000001}]}",
            "backendRefs[0].weight: \"1000001\" is not a weight",
        ),
        (
            "{backendRefs: [{name: Web, port: 80}]}",
            "backendRefs[0].name: \"Web\" is not a DNS label",
        ),
        ("{name: 'A'}", "spec.rules[0].name: \"A\" is not a DNS name"),
        (
            "{timeouts: {request: 10}}",
            "spec.rules[0].timeouts.request: \"10\" is not a duration",
        ),
        ("{timeouts: {request: 1s2s3s4s5s}}", "is not a duration"),
        (
            "{timeouts: {request: 1s, backendRequest: 1001ms}}",
            "spec.rules[0].timeouts.backendRequest: is longer than timeouts.request",
        ),
        (
            "{retry: {codes: [503, 200]}}",
            "spec.rules[0].retry.codes[1]: \"200\" is not a status from 400 to 599",
        ),
        (
            "{retry: {attempts: -1}}",
            "spec.rules[0].retry.attempts: \"-1\" is not a number of tries",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: web, port: 80}]}",
            "spec.rules[0].backendRefs: are of no use beside filter RequestRedirect",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]}",
            "spec.rules[0].filters: RequestRedirect and URLRewrite exclude each other",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]}",
            "spec.rules[0].filters[1].type: URLRewrite is there twice",
        ),
        (
            "{filters: [{type: URLRewrite}]}",
            "spec.rules[0].filters[0].urlRewrite: is missing",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 200}}]}",
            "filters[0].requestRedirect.statusCode: \"200\" is not 301",
        ),
        (
            "{filters: [{type: RequestRedirect, requestRedirect: {scheme: ftp}}]}",
            "filters[0].requestRedirect.scheme: \"ftp\" is not",
        ),
        (
            "{matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}",
            "urlRewrite.path.type: ReplacePrefixMatch needs a rule with one match",
        ),
        (
            "{matches: [{}, {}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]}",
            "ReplacePrefixMatch needs a rule with one match",
        ),
        (
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}}}]}",
            "urlRewrite.path.replaceFullPath: \"/a?b\" is not a path",
        ),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Content-Length]}}]}",
            "requestHeaderModifier.remove[0]: \"Content-Length\" is not a header that may be changed",
        ),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: Host, value: a}]}}]}",
            "requestHeaderModifier.add[0].name: \"Host\" is not a header that may be added",
        ),
        (
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: 'a b'}]}}]}",
            "requestHeaderModifier.set[0].value: \"a b\" is not a host",
        ),
        (
            "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: \"b\\r\\nc: d\"}]}}]}",
            "responseHeaderModifier.set[0].value: \"b\\r\\nc: d\" is not a header's value",
        ),
        (
            "{filters: [{type: RequestMirror, requestMirror: {percent: 101, backendRef: {name: web, port: 80}}}]}",
            "requestMirror: \"101/100\" is not a part of all requests",
        ),
        (
            "{filters: [{type: RequestMirror, requestMirror: {percent: 1, fraction: {numerator: 1}, backendRef: {name: web, port: 80}}}]}",
            "requestMirror.percent: is there beside fraction",
        ),
        (
            "{filters: [{type: CORS, cors: {allowOrigins: ['example.com']}}]}",
            "cors.allowOrigins[0]: \"example.com\" is not",
        ),
        (
            "{filters: [{type: CORS, cors: {maxAge: 0}}]}",
            "cors.maxAge: \"0\" is not a number of seconds",
        ),
    ];
    for (rules, expected) in http {
        let error = read::<HttpMatch>(rules).0.expect_err(rules);
        assert!(error.contains(expected), "{rules}\n{error}");
    }
    let grpc = [
        (
            "{matches: [{method: {}}]}",
            "spec.rules[0].matches[0].method: has neither service nor method",
        ),
        (
            "{matches: [{method: {service: 'a/b'}}]}",
            "spec.rules[0].matches[0].method.service: \"a/b\" is not a name",
        ),
        (
            "{matches: [{method: {service: a, method: 'b.c'}}]}",
            "method.method: \"b.c\" is not a name",
        ),
    ];
    for (rules, expected) in grpc {
        let error = read::<GrpcMatch>(rules).0.expect_err(rules);
        assert!(error.contains(expected), "{rules}\n{error}");
    }
    let many = vec!["{}"; 17].join(", ");
    let error = read::<HttpMatch>(&many).0.unwrap_err();
    assert_eq!(error, "spec.rules: there are 17: 16 are allowed");
}
