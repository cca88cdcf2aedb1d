package directory

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// selfWritable are the property sets whose attributes a user may write of his
// own account, unless an administrator has forbidden it: the default security
// descriptor of the class user grants them to SELF ([MS-ADSC]; the GUIDs are in
// [MS-ADTS] 3.1.1.2.3.3).
var selfWritable = []string{
	"77b5b886-944a-11d1-aebd-0000f80367c1", // Personal-Information
	"e45795b2-9455-11d1-aebd-0000f80367c1", // Phone-and-Mail-Options
	"e45795b3-9455-11d1-aebd-0000f80367c1", // Web-Information
}

// SelfWritable reports whether users may, by default, write an attribute of
// their own account, such as telephoneNumber or info: whoever decides by it
// lets each user decide for himself. An attribute that the schema does not
// know is ErrNotFound.
//
// It looks at the schema only. What has been granted or forbidden on accounts
// and their parents, it does not see.
func (dc *DC) SelfWritable(ctx context.Context, attribute string) (bool, error) {
	writable, err := dc.selfWritable(ctx, attribute)
	if err != nil {
		return false, fmt.Errorf("looking up attribute %q in the schema: %w", attribute, err)
	}
	return writable, nil
}

func (dc *DC) selfWritable(ctx context.Context, attribute string) (bool, error) {
	root, err := dc.readOne(ctx, "", anything, "schemaNamingContext")
	if err != nil {
		return false, err
	}
	result, err := dc.search(ctx, &ldap.SearchRequest{
		BaseDN: root.GetEqualFoldAttributeValue("schemaNamingContext"), Scope: ldap.ScopeSingleLevel,
		Filter:     "(&(objectClass=attributeSchema)(lDAPDisplayName=" + ldap.EscapeFilter(attribute) + "))",
		Attributes: []string{"attributeSecurityGUID"},
	})
	if err != nil {
		return false, err
	}
	if len(result.Entries) != 1 {
		return false, ErrNotFound
	}
	d := decoder{entry: result.Entries[0]}
	if len(d.raw("attributeSecurityGUID")) == 0 {
		return false, nil // it is in no property set
	}
	set := d.guid("attributeSecurityGUID")
	return slices.Contains(selfWritable, set.String()), d.err
}
