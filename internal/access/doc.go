// Package access knows who may see what.
//
// A caller proves a grant with a token in the header X-Esproxy-Authorization. The
// token names the grant; what the grant shows is in the policy, so a change of the
// policy takes effect at once and a token holds no list of fields. Verifying needs one
// HMAC and no store: a token is authentic, or it is refused with a reason.
// A header that is not wholly understood is refused, never ignored,
// because the caller would take ciphertext for the data.
//
// A reason never holds a part of the header: it goes to logs and replies.
package access
