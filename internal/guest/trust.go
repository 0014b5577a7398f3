//go:build linux

package guest

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// writeCAs writes the extra certificates alone and behind the system's, for
// the variables that the tools read. Both files exist also without extras.
func writeCAs(extra string) error {
	if err := os.WriteFile(caExtra, []byte(extra), 0o644); err != nil {
		return fmt.Errorf("extra certificates: %w", err)
	}
	system, err := os.ReadFile(systemCA)
	if err != nil {
		return fmt.Errorf("the system's certificates: %w", err)
	}
	if err := os.WriteFile(caBundle, append(system, extra...), 0o644); err != nil {
		return fmt.Errorf("certificate bundle: %w", err)
	}
	return nil
}

// trust makes the person's NSS database, from which Chromium takes extra
// certificates, hold those of extra and no others.
func (b *browser) trust(ctx context.Context, extra string) error {
	dir := filepath.Join(PersonHome, ".pki/nssdb")
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("certificate database: %w", err)
	}
	if extra == "" {
		return nil
	}
	certutil := func(args ...string) error {
		args = append([]string{"/usr/bin/certutil", "-d", "sql:" + dir}, args...)
		return personCommand(ctx, b.env, b.logs, args...).Run()
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("certificate database: %w", err)
		}
		if err := os.Chown(d, PersonUID, PersonGID); err != nil {
			return fmt.Errorf("certificate database: %w", err)
		}
	}
	if err := certutil("-N", "--empty-password"); err != nil {
		return fmt.Errorf("making the certificate database: %w", err)
	}
	for i, rest := 0, []byte(extra); ; i++ {
		block, tail := pem.Decode(rest)
		if block == nil {
			return nil
		}
		rest = tail
		one := filepath.Join(personRun, "ca.pem")
		if err := os.WriteFile(one, pem.EncodeToMemory(block), 0o644); err != nil {
			return fmt.Errorf("certificate %d: %w", i, err)
		}
		err := certutil("-A", "-n", "anteroom-"+strconv.Itoa(i), "-t", "C,,", "-i", one)
		_ = os.Remove(one)
		if err != nil {
			return fmt.Errorf("adding certificate %d: %w", i, err)
		}
	}
}
