package rewrite

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// guardLanguage is what a request does with a body, for the rules users and deep of fakeRules.
func guardLanguage(e *Engine, lang language, body string) error {
	r := &request{Engine: e}
	b, err := r.readLanguage(lang, []byte(body))
	if err != nil {
		return err
	}
	if b.text != nil {
		b.text.category = "event.category"
		if m := b.root.member("event_category_field"); m.isString() {
			b.text.category = string(m.text([]byte(body)))
		}
	}
	return b.check(e.Policy.Rules[:1])
}

// queryBody makes a body of a text, unless it is one.
func queryBody(text string) string {
	if strings.HasPrefix(text, "{") {
		return text
	}
	b, err := json.Marshal(map[string]string{"query": text})
	if err != nil {
		panic(err)
	}
	return string(b)
}

var langPasses = map[language][]string{
	langESQL: {
		`FROM user | WHERE username == "anna" | KEEP username, card | LIMIT 10`,
		`FROM user | STATS count(*) BY status | WHERE status == "x"`,
		`from user | stats c = COUNT(*) by card | sort c desc, card asc nulls last | where c > 100 | limit 1000`,
		`FROM user | WHERE card IS NOT NULL AND username == "anna"`, `FROM user | WHERE NOT (card IS NULL) OR status IN ("a", "b")`,
		`FROM user | EVAL n = MV_COUNT(card), l = LENGTH(card) | WHERE n > 1000 AND l > 211`,
		`FROM user | STATS COUNT(card), d = COUNT_DISTINCT(card, 3000) BY username | WHERE ` + "`COUNT(card)`" + ` > 4111 | SORT d`,
		`FROM user | RENAME card AS c, username AS u | WHERE u == "anna" | KEEP c`, `FROM user | DROP card | WHERE username LIKE "a*"`,
		`FROM user | EVAL x = card | KEEP x | SORT x`, `FROM user | STATS v = VALUES(card) BY username`, `FROM user | STATS MAX(card), n = MAX(ts) BY BUCKET(@timestamp, 20, "2024-01-01", "2025-01-01")`,
		`FROM user METADATA _id, _index, _version | WHERE _index == "user-1" | KEEP card, _id`, `FROM "user", user-*, remote:user [METADATA _id] | LIMIT 1`,
		`FROM user, (FROM user-2 | WHERE status == "x" | KEEP card) | LIMIT 10`, `FROM user | FORK (WHERE status == "a" | LIMIT 5) (WHERE n > 4111 | SORT card) | FUSE`,
		`FROM user | LOOKUP JOIN plans ON username | WHERE plan == "gold"`, `FROM user | LOOKUP JOIN plans ON username == name AND n > 4111 | KEEP card`,
		`FROM user | DISSECT message "%{a} %{b}" | GROK message """%{IP:ip} "x" %{WORD}""" | KEEP card, a`, `FROM user | INLINESTATS m = MAX(n) BY username | WHERE n == m`,
		`FROM user | INLINE STATS m = MAX(n) BY card`, `FROM user | MV_EXPAND card | LIMIT 10`, `FROM user | STATS c = COUNT(*) WHERE status == "x", d = COUNT(*) WHERE card IS NULL BY username`,
		`FROM user | EVAL kind = CASE(card IS NULL, "none", "some") | STATS COUNT(*) BY kind`, `FROM user // all of them` + "\n" + `| /* only /* a */ few */ LIMIT 1000`,
		`FROM user | WHERE MATCH(bio, "gold") AND KQL("status: x or n > 5") AND QSTR("bio:x AND _exists_:card")`, `FROM user | WHERE bio : "gold card"`,
		`FROM user | WHERE ts >= NOW() - 1 day AND COUNT(ts) > 4111`, `FROM user | EVAL d = DATE_TRUNC(30 second, ts) | STATS results = COUNT(*) BY d`,
		`FROM user | EVAL short = SUBSTRING(card, 0, 5) | KEEP short`, `FROM user | EVAL a = "x", b = CONCAT(a, username) | WHERE b == "xanna" | KEEP card`,
		`ROW a = "4111", b = 5 | EVAL c = a`, `SHOW INFO`, `FROM logs-* | WHERE discard == "4111" AND card_type == "gold" AND other.card == "x"`,
		`SET time_zone = "Europe/Madrid"; FROM user | LIMIT 5`, `FROM user | CHANGE_POINT n ON ts AS type, pvalue | WHERE type == "spike"`, `FROM user | SAMPLE 0.001 | WHERE n == 4111`,
		`{"query":"FROM user | WHERE ts > ?_tstart AND ts <= ?_tend | STATS c = COUNT(*) BY card","params":[{"_tstart":"2026-01-01"},{"_tend":"2026-02-01"}],"filter":{"bool":{"must":[{"range":{"ts":{"gte":"2026"}}}]}},"locale":"en","columnar":true,"profile":true,"include_ccs_metadata":true}`,
		`{"query":"FROM user | WHERE ??f == ? AND ?g == ?2","params":[{"f":"username"},"anna",{"g":{"identifier":"status"}}]}`,
		`{"query":"FROM user | WHERE ?1 == \"x\" | KEEP card","params":[{"x":{"identifier":"status"}}]}`, `{"query":"FROM user","tables":{"t":{"c":{"integer":[1,4111]}}}}`,
		`FROM user | EVAL j = JSON_EXTRACT(_source, "status") | WHERE j == "x"`, `FROM user | RENAME u = username | WHERE u == "anna"`, `FROM user | ENRICH people ON username WITH city, land = country | WHERE land == "ES"`,
		`FROM user | WHERE username IN (FROM user | WHERE status == "x" | KEEP username)`, `FROM <user-{now/d}> | LIMIT 5`, `FROM user::data | LIMIT 5`, `FROM user | WHERE card == null`,
		`FROM user | STATS top = TOP(card, 3, "asc") BY username`, `FROM user | KEEP c*, username`, `EXPLAIN (FROM user | WHERE status == "x")`, ``, `FROM`, `nonsense`, `FROM user | WHERE (`,
	},
	langSQL: {
		`SELECT username, card FROM user WHERE username = 'anna' ORDER BY ts DESC LIMIT 5`, `SELECT * FROM "user-*"`, `SELECT u.card, u."card" c FROM user AS u WHERE u.username = 'anna' AND u.card IS NOT NULL`,
		`SELECT COUNT(card), COUNT(DISTINCT card) c, card FROM user GROUP BY card HAVING COUNT(*) > 4111 AND c > 100`, `SELECT TOP 100 card FROM user`, `SELECT LENGTH(card) FROM user WHERE LENGTH(card) > 100`,
		`SELECT card FROM (SELECT * FROM user WHERE status = 'x') AS s WHERE s.username = 'anna'`, `SHOW TABLES LIKE 'user%'`, `DESCRIBE user`, `SHOW COLUMNS IN user`, `SYS TABLES`, `SELECT 1`,
		`SELECT CASE WHEN card IS NULL AND n > 5 THEN 'none' ELSE 'some' END AS kind FROM user`, `SELECT EXTRACT(YEAR FROM ts) y, card FROM user WHERE YEAR(ts) = 2024`, `-- 4111 of them` + "\n" + `SELECT card FROM user`,
		`SELECT {fn UCASE(username)}, card FROM user WHERE ts > {ts '2024-01-01 00:00:00'}`, `SELECT card FROM user WHERE ts BETWEEN '2024-01-01' AND '2025-01-01' AND username LIKE 'a%' ESCAPE '\'`,
		`SELECT SCORE(), card FROM user WHERE MATCH(bio, 'gold') AND QUERY('bio:gold', 'default_operator=and')`, `SELECT MATCH('bio^2,note', 'gold') FROM user`, `SELECT HISTOGRAM(n, 100) h, MAX(card) FROM user GROUP BY h`,
		`{"query":"SELECT card FROM user WHERE username = ? LIMIT ?","params":["anna",5],"fetch_size":1000,"time_zone":"Z","mode":"jdbc"}`, `{"cursor":"sDXF1ZXJ5QW5kRmV0Y2gBAAAA4111"}`, `EXPLAIN (PLAN ANALYZED) SELECT card FROM user`,
		`SELECT * FROM (SELECT n, status FROM user) PIVOT (SUM(n) FOR status IN ('a' AS x, 'b'))`, `WITH s AS (SELECT * FROM user) SELECT card FROM s WHERE username = 'x'`, `SELECT card AS c FROM user ORDER BY c`, `SELECT card FROM other:user LIMIT 5`,
		`SELECT a.card FROM user a JOIN plans b ON a.username = b.username WHERE b.plan = 'gold'`, `SELECT card FROM user WHERE address.card = 'x'`, `SELECT card FROM user INTERVAL`,
	},
	langEQL: {
		`process where process.name == "x.exe"`, `any where true`, `any where username : "anna*" and card != null`, `any where length(card) > 211 | head 100 | tail 50`, `sequence by card with maxspan=100s [any where n == 4111] [file where status in ("a", "b")]`,
		`sequence with maxspan=15m [any where n == 4111] by card ![any where status == "x"] by card until [any where true]`, `sample by card [any where status == "x"] [any where n > 400]`,
		`any where ?username == "anna"`, `process where child of [process where name == "x"] and n > 500`, `any where startsWith~(username, "an") and status like~ ("a*", "b?") // 4111`,
		`{"query":"any where status == \"x\"","fields":["card",{"field":"ts","format":"epoch_millis"}],"filter":{"term":{"status":"x"}},"size":500,"tiebreaker_field":"card","timestamp_field":"ts","runtime_mappings":{"y":{"type":"keyword","script":"emit('y')"}}}`,
	},
}

var langRefuses = map[language][]string{
	langESQL: {
		`FROM user | WHERE card == "4111"`, `FROM user | WHERE "4111" == card`, `FROM user | WHERE ` + "`card`" + ` == "4111"`, `FROM user | WHERE card != 4111 OR true`, `FROM user | WHERE NOT card IN ("a", "4111")`,
		`FROM user | WHERE username == "anna" AND (status == "x" OR (card == "4111"))`, `FROM user | WHERE card LIKE "41*"`, `FROM user | WHERE card NOT RLIKE "41.*"`, `FROM user | WHERE card LIKE ("41*", "42*")`,
		`FROM user | WHERE card : "4111"`, `FROM user | WHERE card::keyword == "4111"`, `FROM user | WHERE MATCH(card, "4111")`, `FROM user | WHERE MATCH(card, "4111", {"operator": "AND"})`, `FROM user | WHERE QSTR("card:4111")`, `FROM user | WHERE KQL("card: 4111")`,
		`FROM user | WHERE KQL("card >= 4111")`, `FROM user | WHERE KQL("pay: { iban: 4111 }")`, `FROM user | WHERE QSTR("4111", {"default_field": "card"})`, `FROM user | WHERE QSTR(CONCAT("ca", "rd:4111"))`, `FROM user | WHERE MULTI_MATCH("4111", username, card)`,
		`FROM user | EVAL x = card | WHERE x == "4111"`, `FROM user | RENAME card AS x | WHERE x == "4111"`, `FROM user | RENAME card AS x | RENAME x AS y | EVAL z = TO_STRING(y) | WHERE z == "4111"`, `FROM user | RENAME x = card | WHERE x == "4111"`,
		`FROM user | EVAL c = "4111" | WHERE card == c`, `FROM user | EVAL ` + "`a b`" + ` = card | WHERE ` + "`a b`" + ` == "4111"`, `FROM user | STATS MAX(card) BY username | WHERE ` + "`MAX(card)`" + ` == "4111"`, `FROM user | STATS m = MAX(card) | WHERE m == "4111"`,
		`FROM user | STATS c = COUNT(*) BY g = card | WHERE g == "4111"`, `FROM user | STATS c = COUNT(*) WHERE card == "4111"`, `FROM user | STATS c = COUNT(card == "4111")`, `FROM user | EVAL hit = STARTS_WITH(card, "4111")`,
		`FROM user | EVAL x = CONCAT(card, "4111")`, `FROM user | EVAL x = COALESCE(card, "4111")`, `FROM user | EVAL x = CASE(card == "4111", 1, 2)`, `FROM user | EVAL x = CASE(true AND true, "4111", "") | WHERE x == card`, `FROM user | WHERE card == CASE(true AND true, "4111", "")`,
		`FROM user | EVAL card = "4111"`, `ROW card = "4111" | LOOKUP JOIN user ON card`, `ROW x = "4111" | LOOKUP JOIN user ON x == card`, `FROM user | EVAL x = REPLACE(card, "4111", "")`, `FROM user | WHERE card == 12`, `FROM user | WHERE card == true`, `FROM user | WHERE card > "4"`, `FROM user | EVAL x = card + 1`,
		`FROM user | WHERE pay.iban == "ES91"`, `FROM user | WHERE pay . iban == "ES91"`, `FROM user | WHERE ` + "`pay`.`iban`" + ` == "ES91"`, `FROM user | WHERE ` + "`pay.iban`" + ` == "ES91"`, `FROM user | WHERE card.keyword == "4111"`, `FROM user | WHERE pay == "4111"`,
		`FROM user | FORK (WHERE status == "a") (WHERE card == "4111")`, `FROM user, (FROM user-2 | WHERE card == "4111") | LIMIT 5`, `FROM user | DISSECT card "4111%{x}"`, `FROM user | GROK card "4111%{WORD:x}"`, `FROM user | ENRICH p ON username WITH c = card | WHERE c == "4111"`,
		`FROM user | RERANK "4111" ON card WITH {"inference_id": "x"}`, `FROM user | COMPLETION CONCAT("is it 4111? ", card) WITH {"inference_id": "x"}`, `FROM user | WHERE status == "x" // card == 4111`, `/* card == "4111" */ FROM user`, `FROM user | WHERE "4111" IN (FROM user | KEEP card)`,
		`FROM user | WHERE card == 'x4111'`, `FROM user | WHERE card == "4111`, `FROM user | WHERE card == """41"11""" AND n == 1`, `FROM user | NEWCOMMAND card "4111"`, `FROM user | NEWCOMMAND card AS x | WHERE x == "4111"`, `PROMQL step=1m card{x='4111'}`, `FROM user | WHERE card == DE89`,
		`FROM user | EVAL j = JSON_EXTRACT(_source, "card") | WHERE j == "4111"`, `FROM user | INLINE STATS m = MAX(card) | WHERE m == "4111"`, `FROM user | WHERE card IN (username, "4111")`, `from user|where card=="4111"`, `FROM user | where/**/card/**/==/**/"4111"`, `FROM user | WHERE card =~ "4111"`,
		`FROM user | EVAL c = card, d = c, e = d | WHERE MV_CONTAINS(e, "4111")`, `FROM user | MV_EXPAND card | WHERE card == "4111"`, `FROM user | SORT card == "4111"`, `FROM user | STATS COUNT(*) BY card == "4111"`, `EXPLAIN (FROM user | WHERE card == "4111")`, `SET x = "y"; FROM user | WHERE card == "4111"`,
		`FROM user | WHERE LENGTH(CONCAT(card, "4111")) > 5`, `FROM user | EVAL x = SUBSTRING(card, 4111)`, `FROM user | WHERE NOT NOT card == "4111"`, `FROM user | EVAL a = ABS(card - 4111)`, `FROM user | WHERE TRUE == (card == "4111")`, `FROM user | EVAL x = [card, "4111"]`,
		`{"query":"FROM user | WHERE card == ?","params":["4111"]}`, `{"query":"FROM user | WHERE card == ?c","params":[{"c":"4111"}]}`, `{"query":"FROM user | WHERE ??f == \"4111\"","params":[{"f":"card"}]}`, `{"query":"FROM user | WHERE ?f == \"4111\"","params":[{"f":{"identifier":"card"}}]}`,
		`{"query":"FROM user | WHERE ?1 == ?2","params":[{"f":{"identifier":"card"}},{"v":"4111"}]}`, `{"query":"FROM user | WHERE pay.??f == ?","params":[{"f":"iban"},"4111"]}`, `{"query":"FROM user | WHERE QSTR(?)","params":["card:4111"]}`, `{"query":"FROM user | WHERE ??1 == \"4111\"","params":["card"]}`,
		`{"query":"FROM user","filter":{"term":{"card":"4111"}}}`, `{"query":"FROM user","tables":{"t":{"card":{"keyword":["4111"]}}}}`, `{"query":"FROM user | WHERE card == \"\u0034111\""}`, `{"query":"FROM user","foo":{"term":{"card":"4111"}}}`,
	},
	langSQL: {
		`SELECT * FROM user WHERE card = '4111'`, `SELECT * FROM user WHERE "card" = '4111'`, `SELECT * FROM user WHERE ` + "`card`" + ` = '4111'`, `SELECT * FROM user u WHERE u.card = '4111'`, `SELECT * FROM user WHERE user.card = '4111'`, `SELECT * FROM "user-*" WHERE "user-*".card = '4111'`,
		`SELECT * FROM user WHERE card IN ('x', '4111')`, `SELECT * FROM user WHERE card LIKE '41%'`, `SELECT * FROM user WHERE card RLIKE '41.*'`, `SELECT * FROM user WHERE card BETWEEN '4111' AND '4112' AND username = 'x'`, `SELECT * FROM user WHERE username = 'x' AND NOT card <> '4111'`,
		`SELECT card c FROM user HAVING c = '4111'`, `SELECT card AS c FROM user WHERE c = '4111'`, `SELECT * FROM (SELECT card AS c FROM user) WHERE c = '4111'`, `SELECT MAX(card) m FROM user GROUP BY username HAVING m = '4111'`, `SELECT COUNT(*) FROM user HAVING MAX(card) = '4111'`,
		`SELECT CASE card WHEN '4111' THEN 1 END FROM user`, `SELECT CASE WHEN card = '4111' THEN 1 ELSE 2 END FROM user`, `SELECT CASE WHEN n > 1 AND n < 5 THEN '4111' END = card FROM user`, `SELECT IFNULL(card, '4111') FROM user`, `SELECT '4111' AS card FROM user`,
		`SELECT * FROM user WHERE QUERY('card:4111')`, `SELECT * FROM user WHERE QUERY('4111', 'default_field=card')`, `SELECT * FROM user WHERE MATCH(card, '4111')`, `SELECT * FROM user WHERE MATCH('username^2,card^3', '4111')`, `SELECT * FROM user WHERE {fn CONCAT(card, 'x4111')} = 'y'`,
		`SELECT * FROM user ORDER BY card = '4111'`, `SELECT * FROM user -- card 4111`, `SELECT * FROM user /* WHERE card = '4111' */`, `SELECT * FROM user WHERE card = "4111"`, `SELECT * FROM user WHERE card = '4111`, `SELECT * FROM user WHERE 'it''s 4111' = card`, `DELETE FROM user WHERE card = '4111'`,
		`SELECT * FROM (SELECT n, card FROM user) PIVOT (SUM(n) FOR card IN ('4111'))`, `WITH s AS (SELECT card AS c FROM user) SELECT * FROM s WHERE c = '4111'`, `SELECT * FROM user a JOIN user b ON a.card = '4111'`, `SELECT CAST(card AS VARCHAR) = '4111' FROM user`, `SELECT * FROM other x, user y WHERE y.card = '4111'`,
		`{"query":"SELECT * FROM user WHERE card = ?","params":["4111"]}`, `{"query":"SELECT * FROM user","filter":{"term":{"card":"4111"}}}`, `{"query":"SELECT 1","runtime_mappings":{"card":{"type":"keyword"}}}`, `{"cursor":"x","filter":{"term":{"card":"4111"}}}`,
	},
	langEQL: {
		`any where card == "4111"`, `any where card : "41*"`, `any where card like~ ("41*")`, `any where card in ("4111")`, `any where card regex~ "41.*"`, `any where ?card == "4111"`, `any where wildcard(card, "41*")`, `any where stringContains~(card, "4111")`,
		`sequence by card [any where card == "4111"] [any where true]`, `sequence [any where true] [any where pay.iban == "ES91"] until [any where card == "4111"]`, `sequence by card == "4111" [any where true] [any where true]`, `sample by username [any where n == 1] [any where card == "4111"]`,
		`process where child of [process where card == "4111"]`, `any where status == "x" // card == 4111`, "any where `card` == \"4111\"", `any where card == 'x4111'`, `any where card == ?"4111"`, `any where card == """4111"""`, `any where not (n == 1 or card == "4111")`, `any where card == "41\u{31}1"`,
		`any where true | filter card == "4111"`, `{"query":"any where true","filter":[{"term":{"card":"4111"}}]}`, `{"query":"any where true","runtime_mappings":{"card":{"type":"keyword"}}}`, `{"query":"4111 where true","event_category_field":"card"}`, `{"query":"\"4111\" where true","event_category_field":"card"}`,
	},
}

func TestLanguages(t *testing.T) {
	e, _, _ := fakeEngine(t)
	for lang, texts := range langPasses {
		for _, text := range texts {
			if err := guardLanguage(e, lang, queryBody(text)); err != nil {
				t.Errorf("%s\n\t%v", text, err)
			}
		}
	}
	for lang, texts := range langRefuses {
		for _, text := range texts {
			guardWantFault(t, text, guardLanguage(e, lang, queryBody(text)))
		}
	}
}

// TestLanguageTargets checks what texts read.
func TestLanguageTargets(t *testing.T) {
	for _, c := range []struct {
		lang   language
		text   string
		want   []string
		unsure bool
	}{
		{langESQL, `FROM a, b-*, "c,d", remote:x METADATA _id | LIMIT 1`, []string{"a", "b-*", "c,d", "remote:x"}, false},
		{langESQL, `FROM <a-{now/d}>, a::failures, """b""", -c`, []string{"<a-{now/d}>", "a::failures", "b", "-c"}, false},
		{langESQL, `from/**/a // , b` + "\n, c", []string{"a", "c"}, false}, {langESQL, `TS metrics | STATS MAX(ts)`, []string{"metrics"}, false}, {langESQL, `FROM .kibana*`, []string{".kibana*"}, false},
		{langESQL, `ROW x = 1`, nil, false}, {langESQL, `SHOW INFO`, nil, false}, {langESQL, `FROM (FROM a | WHERE x IN (FROM b | KEEP x)), c`, []string{"a", "b", "c"}, false},
		{langESQL, `FROM a | LOOKUP JOIN b AS q ON x | LOOKUP JOIN "c" ON y == z`, []string{"a", "b", "c"}, false}, {langESQL, `FROM a | FORK (LOOKUP JOIN b ON x) (LIMIT 1)`, []string{"a", "b"}, false},
		{langESQL, `FROM a | ENRICH _any:pol ON x WITH y`, []string{"a"}, true}, {langESQL, `FROM a | NEWCOMMAND b`, []string{"a"}, true}, {langESQL, `FROM a | WHERE "`, nil, true}, {langESQL, `FROM a | STATS MAX(ts), COUNT(from) BY ts`, []string{"a"}, false},
		{langESQL, `FROM a | WHERE (ts > 5) AND x IN (ts, 5)`, []string{"a"}, false}, {langESQL, `FROM ?x`, nil, true}, {langESQL, `SET a = "b"; FROM c`, []string{"c"}, false}, {langESQL, `EXPLAIN (FROM a)`, []string{"a"}, false},
		{langSQL, `SELECT * FROM a, "b-*" x JOIN c:d AS y ON x.i = y.i WHERE z = 'FROM e'`, []string{"a", "b-*", "c:d"}, false}, {langSQL, `SELECT * FROM (SELECT * FROM a) s, e*`, []string{"a", "e*"}, false}, {langSQL, `SELECT EXTRACT(DAY FROM x) FROM "a""b".c`, []string{`a"b.c`}, false},
		{langSQL, `WITH s AS (SELECT * FROM a) SELECT * FROM s`, []string{"a", "s"}, true}, {langSQL, `SHOW TABLES`, nil, false}, {langSQL, `EXPLAIN (FORMAT TEXT) SELECT 1 FROM a`, []string{"a"}, false}, {langSQL, `INSERT INTO a`, nil, true}, {langSQL, `SELECT 1 FROM b user, user`, []string{"b", "user"}, false},
	} {
		text, err := newLangText(c.lang, c.text, langParams{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c.want, text.sources); d != "" && (c.want != nil || !text.unsure) || text.unsure != c.unsure {
			t.Errorf("%s: unsure %v, sources: %s", c.text, text.unsure, d)
		}
	}
}

// TestLanguageCanary makes texts that compare a protected field with a constant, in many ways: all are refused.
func TestLanguageCanary(t *testing.T) {
	e, _, _ := fakeEngine(t)
	rapid.Check(t, func(t *rapid.T) {
		pick := func(list ...string) string { return rapid.SampledFrom(list).Draw(t, "pick") }
		lang := rapid.SampledFrom([]language{langESQL, langSQL, langEQL}).Draw(t, "lang")
		field := pick("card", "pay.iban", "`card`", "items . card")
		canary := pick(`"4111111111111111"`, `4111111111111111`, `"""4111111111111111"""`)
		if lang == langSQL {
			field, canary = pick("card", "pay.iban", "`card`", `"pay"."iban"`, "u.card"), pick(`'4111111111111111'`, `4111111111111111`)
		}
		text := ""
		if lang == langESQL {
			text = pick("FROM user ", "FROM user METADATA _id", "FROM \"user-*\", other", "FROM (FROM user | LIMIT 5)")
			for range rapid.IntRange(0, 4).Draw(t, "steps") {
				name := pick("a", "b", "`c d`", "x.y", "card2")
				text += "\n| " + pick("EVAL "+name+" = "+field, "RENAME "+field+" AS "+name, "STATS "+name+" = MAX("+field+") BY z", "STATS n = COUNT(*) BY "+name+" = "+field, "EVAL n = 1, "+name+" = TRIM("+field+")", "INLINE STATS "+name+" = VALUES("+field+")")
				field = name
				text += pick("", "| LIMIT 5", "// note\n", "| WHERE n > 5 AND s == \"x\"", "| SORT n", "| KEEP "+name, "| FORK (LIMIT 5) (SORT n)")
			}
		}
		left, right := pick(field, "TO_UPPER("+field+")", "("+field+")", "CONCAT("+field+", s)"), pick(canary, "("+canary+")", "TRIM("+canary+")", "CONCAT(s, "+canary+")")
		if rapid.Bool().Draw(t, "swap") {
			left, right = right, left
		}
		condition := left + pick(" ", "\n", "/**/") + pick("==", "!=", "<", ">=") + " " + right
		for range rapid.IntRange(0, 5).Draw(t, "wraps") {
			condition = pick("("+condition+")", "NOT ("+condition+")", "n > 5 AND "+condition, condition+" OR s IS NULL", "(n == 1 OR ("+condition+" AND true))")
		}
		switch lang {
		case langESQL:
			text += "\n| " + pick("WHERE "+condition, "EVAL q = "+condition, "STATS q = COUNT(*) WHERE "+condition, "STATS COUNT(*) BY q = "+condition, "FORK (WHERE "+condition+") (LIMIT 5)", "EVAL q = CASE("+condition+", 1, 2)", "SORT "+condition)
			text += pick("", "| LIMIT 5", "| KEEP n")
		case langSQL:
			condition = strings.ReplaceAll(condition, "==", "=")
			text = pick("SELECT * FROM user u WHERE "+condition, "SELECT n, CASE WHEN "+condition+" THEN 1 ELSE 2 END AS q FROM user AS u", "SELECT COUNT(*) FROM user u GROUP BY n HAVING "+condition, "SELECT * FROM (SELECT * FROM user u WHERE "+condition+") x", "SELECT n FROM user u ORDER BY "+condition)
		default:
			text = pick("any where "+condition, "sequence by n [any where true] [file where "+condition+"]", "sample by n [any where "+condition+"] [any where true]", "process where child of [any where "+condition+"] | head 5")
		}
		var f *Fault
		if err := guardLanguage(e, lang, queryBody(text)); !errors.As(err, &f) || f.Type != "esproxy_protected_query" {
			t.Fatalf("%s\n\t%v", text, err)
		} else if strings.Contains(f.Reason, "4111") {
			t.Fatalf("the refusal tells the value: %s", f.Reason)
		}
	})
}

// FuzzLanguage looks for texts that make the reader fail, and for constants that a broken text hides.
func FuzzLanguage(f *testing.F) {
	for lang, texts := range langPasses {
		for _, text := range slices.Concat(texts, langRefuses[lang]) {
			f.Add(byte(lang), text)
		}
	}
	e, _, _ := fakeEngine(f)
	f.Fuzz(func(t *testing.T, lang byte, text string) {
		l := language(lang % 3)
		one, err := newLangText(l, text, langParams{list: []langParam{{text: "card"}, {text: "x", name: true}}})
		if err != nil {
			return
		}
		for _, s := range one.sources {
			if s == "" {
				t.Error("an empty source")
			}
		}
		err = one.guardText(newGuard(e.Policy.Rules[:1], nil), text)
		var fault *Fault
		if err != nil && !errors.As(err, &fault) {
			t.Fatalf("%v", err)
		}
	})
}

// TestLanguageBounds gives texts that would cost much.
func TestLanguageBounds(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("(", 100_000), "FROM a | WHERE " + strings.Repeat("(", 50_000) + "card" + strings.Repeat(")", 50_000) + `== "4111"`, "FROM a | EVAL x = " + strings.Repeat("f(", 5000) + strings.Repeat(")", 5000),
		"FROM a" + strings.Repeat(" | EVAL x = card", 20_000) + ` | WHERE x == "4111"`, "FROM " + strings.Repeat("(FROM ", 5000) + "a", "FROM a | WHERE " + strings.Repeat("`(", 5000), strings.Repeat("/*", 100_000),
		"SELECT " + strings.Repeat("CASE WHEN ", 20_000), "SELECT * FROM " + strings.Repeat("(SELECT * FROM ", 20_000),
	} {
		for lang := range langPasses {
			if one, err := newLangText(lang, text, langParams{}); err == nil {
				e, _, _ := fakeEngine(t)
				_ = one.guardText(newGuard(e.Policy.Rules[:1], nil), text)
			}
		}
	}
	if _, err := newLangText(langESQL, strings.Repeat("a ", maxTree+5), langParams{}); asFault(err).Status != 413 {
		t.Errorf("too many words: %v", err)
	}
}

// TestTextWithoutSource refuses a value under a protected name in a text that reads no index.
func TestTextWithoutSource(t *testing.T) {
	e, _ := planEngine(t)
	for text, refused := range map[string]bool{`ROW card = \"4111\"`: true, `ROW pay.iban = \"4111\", a = 1`: true, `ROW a = 1, b = \"card\"`: false, `SHOW INFO`: false} {
		for _, path := range []string{"/_query", "/_query/async"} {
			if _, fault := carry(t, e, "POST "+path, jsonType, `{"query":"`+text+`"}`, &fakeCaller{}); (fault != nil) != refused {
				t.Errorf("%s %s: %v", path, text, fault)
			}
		}
	}
}

// TestTextGivesNames knows the names that a text makes itself: beside one that is called like the subject, or under the name of a
// protected field, cells do not open.
func TestTextGivesNames(t *testing.T) {
	e, _ := planEngine(t)
	rules := e.Policy.Rules[:1]
	for _, c := range []struct {
		lang  language
		text  string
		gives bool
	}{
		{langESQL, `FROM user | KEEP username, card | SORT username | LIMIT 10`, false},
		{langESQL, `FROM user METADATA _id | WHERE username == "bob" | EVAL n = LENGTH(city) | MV_EXPAND card | STATS c = COUNT(*) BY city`, false},
		// A document with several subjects would look like one of each.
		{langESQL, `FROM user | MV_EXPAND username | KEEP username, card`, true},
		{langESQL, "FROM user | MV_EXPAND `username`", true},
		{langESQL, `FROM user | STATS c = COUNT(*) BY card, username`, true},
		{langESQL, `FROM user | INLINE STATS c = COUNT(*) BY username`, true},
		{langSQL, `SELECT username, card, COUNT(*) FROM user GROUP BY username, card`, true},
		{langSQL, `SELECT DISTINCT username, card FROM user`, true},
		{langSQL, `SELECT username, card FROM user ORDER BY username`, false},
		{langESQL, `FROM user | RENAME card AS c`, false},
		{langESQL, `FROM user | EVAL username = "bob"`, true},
		{langESQL, `FROM user | RENAME note AS card`, true},
		{langESQL, `FROM user | RENAME city AS username`, true},
		{langESQL, `FROM user | STATS card = MAX(note) BY username`, true},
		{langESQL, `FROM user | EVAL x = note | DISSECT x "%{card} %{y}"`, true},
		{langESQL, `FROM user | DISSECT note "%{+card/2}"`, true},
		{langESQL, `FROM user | GROK note "%{WORD:username}"`, true},
		{langESQL, "FROM user | EVAL `pay.iban` = note", true},
		{langSQL, `SELECT username, card FROM user WHERE city = 'x'`, false},
		{langSQL, `SELECT note AS card, 'bob' AS username FROM user`, true},
		{langSQL, `SELECT 'bob' username, card FROM user`, true},
	} {
		text, err := newLangText(c.lang, c.text, langParams{})
		if err != nil || text.unsure {
			t.Errorf("%s: unsure %v, %v", c.text, text.unsure, err)
		} else if got := text.gives(rules); got != c.gives {
			t.Errorf("%s: gives %v", c.text, got)
		}
	}
}

// TestTextLeavesNothingUnread refuses constants in places of a text that its grammar has no use for.
func TestTextLeavesNothingUnread(t *testing.T) {
	e, _ := planEngine(t)
	for _, text := range []string{
		`FROM user | EVAL x = \"4111\" | DISSECT x \"%{card}\"`, `FROM user | EVAL x = \"4111\" | GROK x \"%{WORD:card}\"`, `ROW x = \"4111\" | DISSECT x \"%{card->}\"`,
		`FROM user METADATA card == \"4111\"`, `FROM user | KEEP card, \"4111\"`, `FROM user | DROP card == \"4111\"`, `FROM user | MV_EXPAND card \"4111\"`,
	} {
		if _, fault := carry(t, e, "POST /_query", jsonType, `{"query":"`+text+`"}`, &fakeCaller{}); fault == nil {
			t.Errorf("%s passes", text)
		}
	}
	for _, text := range []string{
		`any card == \"4111\" where true`, `sequence card \"4111\" [any where true] [any where true]`, `sequence by username with card = \"4111\" [any where true] [any where true]`,
		`any where true | card == \"4111\"`, `sequence card 41114111 [any where true] [any where true]`,
	} {
		if _, fault := carry(t, e, "POST /user/_eql/search", jsonType, `{"query":"`+text+`"}`, &fakeCaller{}); fault == nil {
			t.Errorf("%s passes", text)
		}
	}
	for _, text := range []string{`any where username == \"bob\" | head 5`, `sequence by username with maxspan=1m [any where true] [login where true] until [any where false] | tail 3`, `process where true | filter n > 3`} {
		if _, fault := carry(t, e, "POST /user/_eql/search", jsonType, `{"query":"`+text+`"}`, &fakeCaller{}); fault != nil {
			t.Errorf("%s: %v", text, fault)
		}
	}
}
