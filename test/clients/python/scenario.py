"""A small application on the official Python client, run against the proxy by ../scripts_test.go.

The environment gives SERVER (Elasticsearch itself), URL (the proxy), TOKEN (a grant), and INDEX, an index that protects
credit_card_num by subject username. What is wrong ends the run with an AssertionError; the last line counts the checks.
"""

import os

from elasticsearch import ApiError, BadRequestError, ConflictError, Elasticsearch, NotFoundError, helpers

server, url, token, index = (os.environ[name] for name in ("SERVER", "URL", "TOKEN", "INDEX"))
checks = 0


def check(ok, what):
    global checks
    assert ok, what
    checks += 1


def raises(kind, status, error_type, call):
    try:
        call()
    except kind as e:
        check(e.meta.status == status and e.error.startswith(error_type), f"{type(e).__name__} {e.meta.status} {e.error}, want {status} {error_type}")
        return e
    raise AssertionError(f"no {kind.__name__}")


def sealed(value):
    return isinstance(value, str) and value.startswith("esp1.") and len(value) > 200


def documents(n, start=0):
    for i in range(start, start + n):
        yield {"_index": index, "_id": f"b{i}", "username": f"user-{i % 7}", "credit_card_num": f"card-{i}", "n": i}


es = Elasticsearch(url, request_timeout=60)
packed = Elasticsearch(url, request_timeout=60, http_compress=True)
granted = es.options(headers={"X-Esproxy-Authorization": "Bearer " + token})
direct = Elasticsearch(server, request_timeout=60)

# One document: written in clear, sealed for everybody, open for a grant.
r = es.index(index=index, id="1", document={"username": "ana", "credit_card_num": "4111-1111-1111-1111", "n": 1}, refresh=True)
check(r["result"] == "created" and r.meta.status == 201, r)
for who in (es, packed, direct):
    check(sealed(who.get(index=index, id="1")["_source"]["credit_card_num"]), "a document reads in clear")
    check(sealed(who.get_source(index=index, id="1")["credit_card_num"]), "a source reads in clear")
check(granted.get(index=index, id="1")["_source"] == {"username": "ana", "credit_card_num": "4111-1111-1111-1111", "n": 1}, "get with a grant")
check(es.exists(index=index, id="1") and not es.exists(index=index, id="none"), "exists")

# Updates: a part that is protected, a part that is not, an upsert, the source in the reply.
check(es.update(index=index, id="1", doc={"n": 2})["result"] == "updated", "update of another field")
check(granted.get(index=index, id="1")["_source"]["credit_card_num"] == "4111-1111-1111-1111", "the value after an update of another field")
check(es.update(index=index, id="1", doc={"credit_card_num": "4222"})["result"] == "updated", "update of the value")
check(granted.get(index=index, id="1")["_source"]["credit_card_num"] == "4222", "the value after its update")
for n in (1, 2):
    r = granted.update(index=index, id="up", doc={"username": "bob", "credit_card_num": "4333", "m": n}, doc_as_upsert=True, source=True)
check(r["get"]["_source"]["credit_card_num"] == "4333", "the source in the reply of an update")

# The bulk helpers: one bad item among good ones, and the same with compressed bodies and several threads.
docs = list(documents(300))
docs[100] = {"_index": index, "_id": "bad", "credit_card_num": "no-subject"}
ok, errors = helpers.bulk(packed, docs, raise_on_error=False, chunk_size=120, refresh=True)
check(ok == 299 and len(errors) == 1, f"{ok} written, errors {errors}")
item = errors[0]["index"]
check(item["_id"] == "bad" and item["status"] == 400 and item["error"]["type"].startswith("esproxy_"), item)
check("no-subject" not in item["error"]["reason"], "the error quotes the value")
try:
    helpers.bulk(es, docs[95:105])
    raise AssertionError("no BulkIndexError")
except helpers.BulkIndexError as e:
    check(len(e.errors) == 1 and e.errors[0]["index"]["_id"] == "bad", e.errors)
results = list(helpers.parallel_bulk(es, documents(200, 300), thread_count=3, chunk_size=50))
check(len(results) == 200 and all(ok for ok, _ in results), "parallel_bulk")
results = list(helpers.streaming_bulk(es, ({"_op_type": "update", "_index": index, "_id": f"b{i}", "doc": {"n": -i}} for i in range(5)), refresh=True))
check(all(ok for ok, _ in results), "updates in a bulk")

# Searches.
by = {"query": {"term": {"n": 42}}}
hit = es.search(index=index, query=by["query"])["hits"]["hits"][0]
check(sealed(hit["_source"]["credit_card_num"]), "a hit reads in clear")
hit = granted.search(index=index, query=by["query"], fields=["credit_card_num"])["hits"]["hits"][0]
check(hit["_source"]["credit_card_num"] == "card-42" and hit["fields"]["credit_card_num"] == ["card-42"], hit)
check(es.count(index=index, query={"range": {"n": {"gte": 400}}})["count"] == 100, "count")
docs = granted.mget(index=index, ids=["1", "b7", "none"])["docs"]
check([d.get("_source", {}).get("credit_card_num") for d in docs] == ["4222", "card-7", None], docs)
parts = granted.msearch(searches=[{"index": index}, by, {"index": index + "-none"}, {}, {"index": index}, {"size": 0, **by}])["responses"]
check(parts[0]["hits"]["hits"][0]["_source"]["credit_card_num"] == "card-42" and parts[1]["status"] == 404 and parts[2]["hits"]["total"]["value"] == 1, parts)

# All documents: the scan helper (a scroll), and a point in time with search_after.
seen = {h["_id"]: h["_source"]["credit_card_num"] for h in helpers.scan(granted, index=index, size=90)}
check(len(seen) == 501 and all(v == "card-" + k[1:] for k, v in seen.items() if k.startswith("b")), f"scan saw {len(seen)}")
check(all(sealed(h["_source"]["credit_card_num"]) for h in helpers.scan(packed, index=index, size=90)), "scan reads in clear")
pit, after, n = es.open_point_in_time(index=index, keep_alive="1m")["id"], None, 0
while True:
    r = granted.search(size=200, pit={"id": pit, "keep_alive": "1m"}, sort=[{"n": "asc"}, "_shard_doc"], search_after=after, track_total_hits=False)
    if not r["hits"]["hits"]:
        break
    n, after, pit = n + len(r["hits"]["hits"]), r["hits"]["hits"][-1]["sort"], r["pit_id"]
    check(not any(sealed(h["_source"]["credit_card_num"]) for h in r["hits"]["hits"]), "a page of the point in time is sealed")
check(n == 501, f"the point in time gave {n}")
check(es.close_point_in_time(id=pit)["succeeded"], "close")

# Sniffing: the client connects to the proxy only.
own = url.removeprefix("http://")
sniffer = Elasticsearch(url, request_timeout=60, sniff_on_start=True, headers={"X-Esproxy-Authorization": "Bearer " + token})
check(sniffer.get(index=index, id="b7")["_source"]["credit_card_num"] == "card-7", "get after sniffing")
check({f"{n.host}:{n.port}" for n in sniffer.transport.node_pool.all()} == {own}, f"sniffing found {sniffer.transport.node_pool.all()}")
found = Elasticsearch(server, request_timeout=60, sniff_on_start=True).transport.node_pool.all()
check(found and own not in {f"{n.host}:{n.port}" for n in found}, f"sniffing around the proxy found {found}")

# Deletions.
check(es.delete(index=index, id="up", refresh=True)["result"] == "deleted", "delete")
try:
    check(es.delete_by_query(index=index, query={"range": {"n": {"gte": 450}}}, refresh=True)["deleted"] == 50, "delete_by_query")
except BadRequestError as e:
    check("no handler found" in str(e) and os.environ.get("LACKS_BY_QUERY"), e)  # the minimal server

# Errors arrive as the client's own types.
raises(NotFoundError, 404, "index_not_found", lambda: es.search(index=index + "-none"))
raises(ConflictError, 409, "version_conflict", lambda: es.create(index=index, id="1", document={"username": "ana"}))
e = raises(BadRequestError, 400, "esproxy_", lambda: es.index(index=index, document={"credit_card_num": "9999-no-subject"}))
check("9999" not in str(e) and "9999" not in str(e.body), "the error quotes the value")
raises(BadRequestError, 400, "esproxy_", lambda: es.search(index=index, query={"term": {"credit_card_num": "4111"}}))
raises(BadRequestError, 400, "parsing_exception", lambda: es.search(index=index, query={"wat": {}}))
for bad in ("Bearer " + token[:-2] + "zz", "Bearer wat", token):
    raises(ApiError, 403, "esproxy_bad_grant", lambda: es.options(headers={"X-Esproxy-Authorization": bad}).get(index=index, id="1"))

print(f"{checks} checks passed")
