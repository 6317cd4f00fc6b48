// A small application on the official JavaScript client, run against the proxy by ../scripts_test.go.
//
// The environment gives SERVER (Elasticsearch itself), URL (the proxy), TOKEN (a grant), and INDEX, an index that protects
// credit_card_num by subject username. What is wrong ends the run with an AssertionError; the last line counts the checks.
'use strict'

const assert = require('node:assert')
const { Client, errors } = require('@elastic/elasticsearch')

const { SERVER, URL: url, TOKEN, INDEX: index, LACKS_BY_QUERY } = process.env
let checks = 0

function check (ok, what) {
  assert.ok(ok, typeof what === 'string' ? what : JSON.stringify(what))
  checks++
}

async function rejects (status, type, promise) {
  let error
  try {
    await promise
  } catch (e) {
    error = e
  }
  check(error instanceof errors.ResponseError && error.statusCode === status && error.body.error.type.startsWith(type), `${error}, want ${status} ${type}`)
  return error
}

const sealed = value => typeof value === 'string' && value.startsWith('esp1.') && value.length > 200
const card = hit => hit._source.credit_card_num

async function main () {
  const es = new Client({ node: url })
  const packed = new Client({ node: url, compression: true })
  const granted = new Client({ node: url, headers: { 'x-esproxy-authorization': 'Bearer ' + TOKEN } })
  const direct = new Client({ node: SERVER })

  // One document: written in clear, sealed for everybody, open for a grant.
  let r = await es.index({ index, id: '1', document: { username: 'ana', credit_card_num: '4111-1111-1111-1111', n: 1 }, refresh: true })
  check(r.result === 'created', r)
  for (const who of [es, packed, direct]) {
    check(sealed(card(await who.get({ index, id: '1' }))), 'a document reads in clear')
    check(sealed((await who.getSource({ index, id: '1' })).credit_card_num), 'a source reads in clear')
  }
  assert.deepStrictEqual((await granted.get({ index, id: '1' }))._source, { username: 'ana', credit_card_num: '4111-1111-1111-1111', n: 1 })
  check(await es.exists({ index, id: '1' }) && !(await es.exists({ index, id: 'none' })), 'exists')

  // Updates: a part that is protected, a part that is not, an upsert, the source in the reply.
  check((await es.update({ index, id: '1', doc: { n: 2 } })).result === 'updated', 'update of another field')
  check(card(await granted.get({ index, id: '1' })) === '4111-1111-1111-1111', 'the value after an update of another field')
  check((await es.update({ index, id: '1', doc: { credit_card_num: '4222' } })).result === 'updated', 'update of the value')
  check(card(await granted.get({ index, id: '1' })) === '4222', 'the value after its update')
  for (const m of [1, 2]) {
    r = await granted.update({ index, id: 'up', doc: { username: 'bob', credit_card_num: '4333', m }, doc_as_upsert: true, _source: true })
  }
  check(card(r.get) === '4333', r)

  // The bulk helper: one bad item among good ones, in many small requests at once.
  const docs = Array.from({ length: 300 }, (_, i) => ({ id: 'b' + i, doc: { username: 'user-' + i % 7, credit_card_num: 'card-' + i, n: i } }))
  docs[100] = { id: 'bad', doc: { credit_card_num: 'no-subject' } }
  for (const who of [es, packed]) {
    const dropped = []
    const stats = await who.helpers.bulk({
      datasource: docs,
      flushBytes: 4000,
      concurrency: 3,
      refreshOnCompletion: index,
      onDocument: d => [{ index: { _index: index, _id: d.id } }, d.doc],
      onDrop: d => dropped.push(d)
    })
    check(stats.successful === 299 && stats.failed === 1 && stats.retry === 0 && !stats.aborted, stats)
    check(dropped.length === 1 && dropped[0].status === 400 && dropped[0].error.type.startsWith('esproxy_') && !dropped[0].retried, dropped)
    check(!dropped[0].error.reason.includes('no-subject'), 'the error quotes the value')
  }
  const stats = await es.helpers.bulk({
    datasource: [1, 2, 3],
    refreshOnCompletion: true,
    onDocument: i => [{ update: { _index: index, _id: 'b' + i } }, { doc: { n: -i } }]
  })
  check(stats.successful === 3, stats)

  // Searches.
  const query = { term: { n: 42 } }
  let hit = (await es.search({ index, query })).hits.hits[0]
  check(sealed(card(hit)), 'a hit reads in clear')
  hit = (await granted.search({ index, query, fields: ['credit_card_num'] })).hits.hits[0]
  check(card(hit) === 'card-42' && hit.fields.credit_card_num[0] === 'card-42', hit)
  check((await es.count({ index, query: { range: { n: { gte: 200 } } } })).count === 100, 'count')
  const got = (await granted.mget({ index, ids: ['1', 'b7', 'none'] })).docs
  assert.deepStrictEqual(got.map(d => d._source?.credit_card_num), ['4222', 'card-7', undefined])
  const parts = (await granted.msearch({ searches: [{ index }, { query }, { index: index + '-none' }, {}, { index }, { size: 0, query }] })).responses
  check(card(parts[0].hits.hits[0]) === 'card-42' && parts[1].status === 404 && parts[2].hits.total.value === 1, parts)
  const many = granted.helpers.msearch()
  const found = await Promise.all([7, 8, 9].map(n => many.search({ index }, { query: { term: { n } } })))
  many.stop()
  assert.deepStrictEqual(found.map(f => f.documents[0].credit_card_num), ['card-7', 'card-8', 'card-9'])

  // All documents: the scroll helper, and a point in time with search_after.
  let n = 0
  for await (const doc of granted.helpers.scrollDocuments({ index, size: 90, query: { exists: { field: 'n' } } })) {
    check(!sealed(doc.credit_card_num), 'a page of the scroll is sealed')
    n++
  }
  check(n === 300, `the scroll gave ${n}`)
  for await (const page of packed.helpers.scrollSearch({ index, size: 200 })) {
    check(page.documents.every(d => sealed(d.credit_card_num)), 'a page of the scroll reads in clear')
  }
  let pit = (await es.openPointInTime({ index, keep_alive: '1m' })).id
  let after
  for (n = 0; ;) {
    const page = await granted.search({ size: 200, pit: { id: pit, keep_alive: '1m' }, sort: [{ n: 'asc' }, '_shard_doc'], search_after: after, track_total_hits: false })
    const hits = page.hits.hits
    if (hits.length === 0) break
    check(!hits.some(h => sealed(card(h))), 'a page of the point in time is sealed')
    n += hits.length
    after = hits.at(-1).sort
    pit = page.pit_id
  }
  check(n === 301, `the point in time gave ${n}`)
  check((await es.closePointInTime({ id: pit })).succeeded, 'close')

  // Sniffing: the client connects to the proxy only.
  const sniffer = new Client({ node: url, headers: { 'x-esproxy-authorization': 'Bearer ' + TOKEN } })
  const hosts = client => client.connectionPool.connections.map(c => c.url.host)
  const sniff = client => new Promise((resolve, reject) => {
    client.diagnostic.once('sniff', (err) => err ? reject(err) : resolve())
    client.transport.sniff({ reason: 'test' })
  })
  await sniff(sniffer)
  const nodes = hosts(sniffer)
  check(nodes.length > 0 && nodes.every(h => h === new URL(url).host), nodes)
  check(card(await sniffer.get({ index, id: 'b7' })) === 'card-7', 'get after sniffing')
  const around = new Client({ node: SERVER })
  await sniff(around)
  check(hosts(around).every(h => h !== new URL(url).host), hosts(around))

  // Deletions.
  check((await es.delete({ index, id: 'up', refresh: true })).result === 'deleted', 'delete')
  if (LACKS_BY_QUERY) { // the minimal server
    const e = await es.deleteByQuery({ index, query: { match_all: {} } }).catch(e => e)
    check(e.statusCode === 400 && JSON.stringify(e.body).includes('no handler found'), `${e}`)
  } else {
    check((await es.deleteByQuery({ index, query: { range: { n: { gte: 250 } } }, refresh: true })).deleted === 50, 'deleteByQuery')
  }

  // Errors arrive as the client's own types.
  await rejects(404, 'index_not_found', es.search({ index: index + '-none' }))
  await rejects(409, 'version_conflict', es.create({ index, id: '1', document: { username: 'ana' } }))
  const e = await rejects(400, 'esproxy_', es.index({ index, document: { credit_card_num: '9999-no-subject' } }))
  check(!JSON.stringify(e.body).includes('9999') && !e.message.includes('9999'), 'the error quotes the value')
  await rejects(400, 'esproxy_', es.search({ index, query: { term: { credit_card_num: '4111' } } }))
  await rejects(400, 'parsing_exception', es.search({ index, query: { wat: {} } }))
  for (const bad of ['Bearer ' + TOKEN.slice(0, -2) + 'zz', 'Bearer wat', TOKEN]) {
    await rejects(403, 'esproxy_bad_grant', es.get({ index, id: '1' }, { headers: { 'x-esproxy-authorization': bad } }))
  }
  console.log(`${checks} checks passed`)
}

main().catch(e => {
  console.error(e)
  process.exitCode = 1
})
