//! Invented people: example.com addresses, 555 numbers, and names in several scripts.

use super::dice::Dice;

/// A given name and its form in an e-mail address.
const FIRST: [(&str, &str); 24] = [
    ("Maria", "maria"),
    ("James", "james"),
    ("Zoë", "zoe"),
    ("José", "jose"),
    ("Priya", "priya"),
    ("Łukasz", "lukasz"),
    ("Anna", "anna"),
    ("Kwame", "kwame"),
    ("Søren", "soren"),
    ("Emily", "emily"),
    ("Omar", "omar"),
    ("李娜", "lina"),
    ("Grace", "grace"),
    ("Björn", "bjorn"),
    ("Carlos", "carlos"),
    ("Aoife", "aoife"),
    ("Tom", "tom"),
    ("Fatima", "fatima"),
    ("Николай", "nikolai"),
    ("Ruth", "ruth"),
    ("Hiro", "hiro"),
    ("Dana", "dana"),
    ("Renée", "renee"),
    ("Sam 😀", "sam"),
];

/// A family name and its form in an e-mail address.
const LAST: [(&str, &str); 24] = [
    ("Miller", "miller"),
    ("O'Neill", "oneill"),
    ("García", "garcia"),
    ("Nguyễn", "nguyen"),
    ("Schäfer", "schaefer"),
    ("Okafor", "okafor"),
    ("Kowalski", "kowalski"),
    ("Smith-Jones", "smith-jones"),
    ("Patel", "patel"),
    ("Åberg", "aberg"),
    ("Dubois", "dubois"),
    ("Tanaka", "tanaka"),
    ("Colter V", "colter"),
    ("Rossi", "rossi"),
    ("de la Cruz", "delacruz"),
    ("Haddad", "haddad"),
    ("Ivanova", "ivanova"),
    ("Brown", "brown"),
    ("Kim", "kim"),
    ("Van den Berg", "vandenberg"),
    ("Helms", "helms"),
    ("Mwangi", "mwangi"),
    ("Fife", "fife"),
    ("Çelik", "celik"),
];

/// Companies that the people say they call for.
const COMPANIES: [&str; 12] = [
    "Northwind Roofing",
    "Bluebird Dental",
    "Harbor & Sons",
    "Müller Gärten",
    "Acme \"Quick\" Plumbing",
    "Riverside Vets",
    "Sunny/Side Solar",
    "Oakline Kitchens",
    "First Street Law",
    "Peak Fitness",
    "Café Español",
    "Juniper Moving Co.",
];

/// A place people call from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Town {
    /// Its name.
    pub(super) city: &'static str,
    /// Two letters.
    pub(super) state: &'static str,
    /// As text, leading zeros kept.
    pub(super) zip: &'static str,
    /// Two letters.
    pub(super) country: &'static str,
    /// The telephone area code.
    pub(super) area: &'static str,
}

const TOWNS: [Town; 12] = [
    Town { city: "Charlotte", state: "NC", zip: "28226", country: "US", area: "704" },
    Town { city: "Boston", state: "MA", zip: "02108", country: "US", area: "617" },
    Town { city: "Austin", state: "TX", zip: "78701", country: "US", area: "512" },
    Town { city: "Cañon City", state: "CO", zip: "81212", country: "US", area: "719" },
    Town { city: "Montréal", state: "QC", zip: "H2X 1Y4", country: "CA", area: "514" },
    Town { city: "Phoenix", state: "AZ", zip: "85001", country: "US", area: "602" },
    Town { city: "Portland", state: "OR", zip: "97201", country: "US", area: "503" },
    Town { city: "Newark", state: "NJ", zip: "07102", country: "US", area: "973" },
    Town { city: "Tampa", state: "FL", zip: "33602", country: "US", area: "813" },
    Town { city: "Coeur d'Alene", state: "ID", zip: "83814", country: "US", area: "208" },
    Town { city: "Chicago", state: "IL", zip: "60601", country: "US", area: "312" },
    Town { city: "Seattle", state: "WA", zip: "98101", country: "US", area: "206" },
];

/// Somebody who gets in touch.
#[derive(Debug)]
pub(super) struct Person {
    /// Given and family name.
    pub(super) name: String,
    /// An address at example.com.
    pub(super) email: String,
    /// The company named.
    pub(super) company: &'static str,
    /// Where the person is.
    pub(super) town: Town,
    line: u32,
}

impl Person {
    /// Returns the person of a set of dice.
    pub(super) fn new(dice: &Dice) -> Self {
        let (first, first_ascii) = dice.pick(0, &FIRST);
        let (last, last_ascii) = dice.pick(1, &LAST);
        let number = dice.below(2, 10_000);
        Self {
            name: format!("{first} {last}"),
            email: format!("{first_ascii}.{last_ascii}{number}@example.com"),
            company: dice.pick(3, &COMPANIES),
            town: dice.pick(4, &TOWNS),
            line: 100 + dice.below(5, 100),
        }
    }

    /// Returns the telephone number in international form.
    pub(super) fn phone(&self) -> String {
        format!("+1{}5550{}", self.town.area, self.line)
    }

    /// Returns the telephone number without its country code.
    pub(super) fn national_digits(&self) -> String {
        format!("{}5550{}", self.town.area, self.line)
    }

    /// Returns the telephone number as people write it.
    pub(super) fn national_phone(&self) -> String {
        format!("({}) 555-0{}", self.town.area, self.line)
    }
}
