package envelope

import (
	"crypto/fips140"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// FIPS mode is chosen when the process starts, so the test runs itself again in it.
func TestFIPSModeAllowsGCMOnly(t *testing.T) {
	const marker = "FIPS cases ran"
	if !fips140.Enabled() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFIPSModeAllowsGCMOnly$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=on")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), marker) {
			t.Fatalf("in FIPS mode: %v\n%s", err, out)
		}
		return
	}
	var file vectorFile
	readJSON(t, "vectors.json", &file)
	k, err := ParseKey(file.Keys[0].Text, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeyring(k, nil, Options{Suite: EAX}); err == nil {
		t.Error("EAX is accepted")
	}
	r, err := NewKeyring(k, nil, Options{})
	if err != nil || r.Suite() != GCM {
		t.Fatalf("default: %v", err)
	}
	opened, refused := 0, 0
	for _, v := range file.Values {
		if v.Key != file.Keys[0].Name {
			continue
		}
		got, err := r.Open(nil, v.Scope, v.Path, v.subject(), v.Bound, v.kdf(), []byte(v.Token))
		switch {
		case Suite(v.Suite) == GCM && err == nil && string(got) == v.Value:
			opened++
		case Suite(v.Suite) == EAX && errors.Is(err, ErrProfile):
			refused++
		default:
			t.Errorf("%s: %q, %v", v.Name, got, err)
		}
	}
	if opened == 0 || refused == 0 {
		t.Errorf("opened %d, refused %d", opened, refused)
	}
	if _, err := OpenLegacyRecord(LegacyParams{N: 2, R: 1, P: 1}, "m", "u", "", LegacyBox{}); !errors.Is(err, ErrProfile) {
		t.Errorf("legacy record: %v", err)
	}
	sealDocument(t, r, nil, HKDF)
	t.Log(marker)
}
