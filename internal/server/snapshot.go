package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/steps"
)

// warmTime is how long a cold browser may take to be ready for a snapshot; of a
// driver that is Paced, its multiple of it.
const warmTime = 2 * time.Minute

// snapshotMachine is the id of the machine that is saved: another one for each
// state directory, since the cgroups of a computer's servers are in one place,
// and the same again for the next server, which clears away what a killed one has
// left.
func snapshotMachine(stateDir string) string {
	sum := sha256.Sum256([]byte(stateDir))
	return "snapshot" + hex.EncodeToString(sum[:6])
}

// saveSnapshot makes the snapshot of a warm browser machine, if it is missing.
func saveSnapshot(ctx context.Context, cfg Config, driver hostDriver, settings guestapi.Warm) error {
	key, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(key)
	driver.UseSnapshot(hex.EncodeToString(sum[:]))
	if driver.HasSnapshot() {
		return nil
	}
	id := snapshotMachine(cfg.StateDir)
	save := func(steps.Status) error {
		ctx, cancel := context.WithTimeout(ctx, warmTime*time.Duration(machine.PaceOf(driver)))
		defer cancel()
		if err := driver.Destroy(ctx, id); err != nil { // of a run that was killed
			return err
		}
		return driver.SaveSnapshot(ctx, id, func(ctx context.Context, conn net.Conn) error {
			l, err := line.Host(conn)
			if err != nil {
				return err
			}
			defer func() { _ = l.Close() }()
			return guestapi.NewClient(l).Warm(ctx, settings)
		})
	}
	if cfg.Steps == nil {
		return save(nil)
	}
	return cfg.Steps.Do("Saving the warm snapshot", save)
}

// checkPEM refuses what is not a list of certificates.
func checkPEM(b []byte) error {
	n := 0
	for rest := b; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("block %d is a %q, not a CERTIFICATE", n+1, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d: %w", n+1, err)
		}
	}
	if n == 0 {
		return errors.New("there is no certificate in PEM form in it")
	}
	return nil
}
