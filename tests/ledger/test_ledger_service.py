"""What the service keeps in the ledger: tokens as hashes, and requests that were made before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_l2.ledger import Conflict, InvalidRecord, KeyUsed, Request, State


def test_a_token_is_known_by_its_hash_until_it_is_taken_back(ledger, sql):
    token, secret = ledger.add_token("ann", "operator", actor="olga")
    other, _other_secret = ledger.add_token("ann", "reader", actor="olga")
    assert ledger.holder(secret) == token
    assert (token.name, token.role, token.added_by, token.revoked_at) == ("ann", "operator", "olga", None)
    assert secret not in str(sql("SELECT * FROM {s}service_tokens"))
    for wrong in ("", "l2_", secret[:-1], secret + "A", f"l2_{other.token_id}_{secret[14:]}", "\0"):
        assert ledger.holder(wrong) is None, wrong
    gone = ledger.revoke_token(token.token_id, actor="cleo")
    assert ledger.holder(secret) is None
    assert ledger.revoke_token(token.token_id, actor="bob") == gone
    assert gone.revoked_by == "cleo"
    assert ledger.tokens() == [gone, other]


def test_no_token_for_a_role_that_is_none_and_none_is_taken_back_that_was_never_given(ledger):
    with pytest.raises(InvalidRecord, match="operator"):
        ledger.add_token("ann", "root", actor="olga")
    with pytest.raises(InvalidRecord, match="empty"):
        ledger.add_token(" ", "reader", actor="olga")
    with pytest.raises(InvalidRecord, match="l2 token list"):
        ledger.revoke_token("0000000000", actor="olga")
    assert ledger.tokens() == []


def test_the_same_request_again_gives_what_it_wrote_though_the_op_has_moved_on(ledger, bring):
    bring(ledger, "op", State.PREPROCESSED)
    claim, release = Request("bob", "k1", "claim op"), Request("bob", "k2", "release op")
    first = ledger.once(claim).claim("op", actor="bob")
    released = ledger.once(release).release("op", actor="bob")
    remark = ledger.once(Request("bob", "k3", "note")).note("op", "x", actor="bob")
    ledger.claim("op", actor="cleo")
    ready = Request("cleo", "k1", "ready")
    event = ledger.once(ready).submit_ready("op", products="/p", commit_hash="abc", actor="cleo")
    before = ledger.history("op")
    assert ledger.once(claim).claim("op", actor="bob") == first
    assert ledger.once(release).release("op", actor="bob") == released
    assert ledger.once(Request("bob", "k3", "note")).note("op", "x", actor="bob") == remark
    assert ledger.once(ready).submit_ready("op", products="/p", commit_hash="abc", actor="cleo") == event
    assert ledger.history("op") == before
    assert len(ledger.events("op")) == 1


def test_what_was_refused_may_be_asked_again_with_the_same_key(ledger, bring):
    bring(ledger, "op", State.WORKING, scientist="bob")
    request = Request("cleo", "k", "claim op")
    with pytest.raises(Conflict, match="bob has claimed it"):
        ledger.once(request).claim("op", actor="cleo")
    ledger.release("op", actor="bob")
    assert ledger.once(request).claim("op", actor="cleo").details["claimed_by"] == "cleo"


def test_a_key_is_of_one_person_and_one_request(ledger, bring):
    for op in ("a", "b"):
        bring(ledger, op, State.PREPROCESSED)
    ledger.once(Request("bob", "k", "claim a")).claim("a", actor="bob")
    with pytest.raises(KeyUsed, match="draw a new one"):
        ledger.once(Request("bob", "k", "claim b")).claim("b", actor="bob")
    assert ledger.once(Request("cleo", "k", "claim b")).claim("b", actor="cleo").op_id == "b"
    with pytest.raises(InvalidRecord, match="idempotency key"):
        ledger.once(Request("bob", "\0", "note")).note("a", "x", actor="bob")
    assert ledger.annotations("a") == []


def test_the_same_request_many_times_at_once_is_one_step(ledger, bring):
    bring(ledger, "op", State.PREPROCESSED)
    request = Request("bob", "k", "claim op")
    with ThreadPoolExecutor(8) as pool:
        steps = list(pool.map(lambda _n: ledger.once(request).claim("op", actor="bob"), range(16)))
    assert len(set(map(repr, steps))) == 1
    assert len(ledger.history("op")) == 4
