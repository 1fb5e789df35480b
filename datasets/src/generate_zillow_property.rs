//! One generated home of the Zillow data, and its sales.
//!
//! A home lies in a county, in a zip code of it and in a census tract of that; what is recorded of it depends on the
//! county, as in the real data: garages, storeys and fireplaces outside Los Angeles, zoning, units and building quality
//! inside. Rates are those of the real files of 2016.

use crate::detmath::exp;
use crate::generate_zillow::Cell;
use crate::prng::Rng;

const STREAM_ZIP: u64 = u64::MAX - 10;
const STREAM_SALE: u64 = 1;
const STREAM_COUNTY: u64 = 2;

struct County {
    /// In thousandths of all homes.
    share: u64,
    fips: i64,
    region: i64,
    /// Least parcel number: numbers run over `PARCELS` from here.
    first_parcel: i64,
    n_zips: u64,
    first_zip: i64,
    /// Latitude and longitude of the middle, and how far zip codes lie from it, in degrees.
    centre: [f64; 2],
    spread: [f64; 2],
    year: f64,
}

const LOS_ANGELES: usize = 0;

const COUNTIES: [County; 3] = [
    County {
        share: 682,
        fips: 6037,
        region: 3101,
        first_parcel: 10_711_725,
        n_zips: 280,
        first_zip: 95_982,
        centre: [34.08, -118.25],
        spread: [0.17, 0.2],
        year: 1957.0,
    },
    County {
        share: 244,
        fips: 6059,
        region: 1286,
        first_parcel: 13_720_000,
        n_zips: 90,
        first_zip: 96_940,
        centre: [33.74, -117.86],
        spread: [0.1, 0.12],
        year: 1973.0,
    },
    County {
        share: 74,
        fips: 6111,
        region: 2061,
        first_parcel: 16_730_000,
        n_zips: 30,
        first_zip: 97_080,
        centre: [34.25, -119.0],
        spread: [0.06, 0.13],
        year: 1975.0,
    },
];

/// A prime near the number of homes in the real data: row numbers are scattered over it without collision.
const PARCELS: u64 = 2_999_999;

/// Use of the land: its number in the real data, how many in ten thousand, the county's code, units, and size in log
/// square feet against a house.
const USES: [(i64, u64, &str, i64, f64); 11] = [
    (261, 7240, "0100", 1, 0.0),
    (266, 1620, "010C", 1, -0.3),
    (246, 390, "0200", 2, 0.15),
    (269, 210, "0101", 1, 0.05),
    (248, 140, "0400", 4, 0.75),
    (247, 120, "0300", 3, 0.45),
    (31, 100, "1210", 1, 0.4),
    (265, 90, "010D", 1, -0.1),
    (260, 50, "122", 1, 0.0),
    (263, 30, "0109", 1, -0.25),
    (267, 10, "010G", 1, -0.2),
];

const ZONES: [&str; 10] = ["LAR1", "LAR3", "LARS", "LARD1.5", "LAR2", "LCR1YY", "LBR1N", "LARE11", "SCUR2", "LCA21"];

pub(crate) struct Property {
    parcel: i64,
    /// Nothing but its number is known.
    unknown: bool,
    county: usize,
    zip: u64,
    city: i64,
    neighborhood: Option<i64>,
    /// In millionths of a degree.
    place: [i64; 2],
    tract: i64,
    block: i64,
    use_of_land: usize,
    year: f64,
    log_sqft: f64,
    log_value: f64,
    /// Of the value, the part that is land.
    land_share: f64,
    pool: bool,
    delinquent: bool,
    /// What the estimate errs by in the zip code.
    zip_error: f64,
    /// The stream, for what nothing else depends on.
    seed: u64,
    row: u64,
}

/// A sale: Zillow's error is the logarithm of its estimate over the price.
pub(crate) struct Sale {
    pub(crate) parcel: i64,
    pub(crate) log_error: f64,
    /// Days since 1970-01-01.
    pub(crate) day: i32,
}

const DAY_2016: i32 = 16_801;

/// The sales of property `row`: mostly none.
pub(crate) fn sales(seed: u64, row: u64) -> impl Iterator<Item = Sale> {
    let mut rng = Rng::new(seed, row, STREAM_SALE);
    // 90,150 of 2,985,217 homes are sold, 125 of them twice.
    let n_sales = match rng.unit() {
        ticket if ticket < 0.000_042 => 2,
        ticket if ticket < 0.0302 => 1,
        _ => 0,
    };
    (0..n_sales).map(move |_| {
        let home = Property::new(seed, row);
        // Nine in ten up to the middle of October, fewest in winter; the file ends with the year.
        let day = match rng.unit() < 0.9 {
            true => (144.0 + 145.0 * (rng.unit() + rng.unit() - 1.0)) as i32,
            false => 289 + rng.below(76) as i32,
        };
        let day = DAY_2016 + day.clamp(0, 365);
        let wild = if rng.unit() < 0.05 { 5.5 } else { 1.0 };
        let log_error = home.expected_log_error(day) + 0.085 * wild * f64::from(rng.rough_normal());
        Sale { parcel: home.parcel, log_error: (log_error * 10_000.0).round() / 10_000.0, day }
    })
}

/// e to the power of `x`, beyond the range of the series.
fn exp_large(x: f64) -> f64 {
    exp(x - 10.0) * 22_026.465_794_806_718
}

fn of<const N: usize>(rng: &mut Rng, shares: [(i64, u64); N]) -> i64 {
    let mut ticket = rng.below(shares.iter().map(|(_, share)| share).sum());
    for (value, share) in shares {
        if ticket < share {
            return value;
        }
        ticket -= share;
    }
    shares[N - 1].0
}

impl Property {
    fn county_of(seed: u64, row: u64) -> usize {
        let ticket = Rng::new(seed, row, STREAM_COUNTY).below(1000);
        match ticket {
            ticket if ticket < COUNTIES[0].share => 0,
            ticket if ticket < COUNTIES[0].share + COUNTIES[1].share => 1,
            _ => 2,
        }
    }

    fn parcel(county: usize, row: u64) -> i64 {
        let (round, row) = (row / PARCELS, row % PARCELS);
        COUNTIES[county].first_parcel + (row * 1_234_577 % PARCELS) as i64 + 20_000_000 * round as i64
    }

    /// Number of the property `row`.
    pub(crate) fn parcel_of(seed: u64, row: u64) -> i64 {
        Property::parcel(Property::county_of(seed, row), row)
    }

    pub(crate) fn new(seed: u64, row: u64) -> Property {
        let mut rng = Rng::new(seed, row, 0);
        let county = Property::county_of(seed, row);
        let about = &COUNTIES[county];
        // Zip codes with small numbers have more homes.
        let zip = (about.n_zips as f64 * rng.unit() * rng.between(0.5, 1.0)) as u64;
        let mut local = Rng::new(seed, STREAM_ZIP - county as u64, zip);
        let mut near = |axis: usize| about.centre[axis] + about.spread[axis] * f64::from(local.rough_normal());
        let centre = [near(0), near(1)];
        let (dear, zip_year) = (0.42 * local.normal(), about.year + 9.0 * local.normal());
        let has_neighborhood = local.unit() < if county == LOS_ANGELES { 0.5 } else { 0.15 };
        let zip_error = 0.03 * local.normal();
        let city = match county {
            // The city of Los Angeles itself.
            LOS_ANGELES if zip.is_multiple_of(3) => 12_447,
            _ => 4_406 + 137 * (zip as i64 / 2) + 50_000 * county as i64,
        };
        let part = rng.below(8);
        let mut tract_place = Rng::new(seed, STREAM_ZIP - 10 - county as u64, zip * 8 + part);
        let place = centre.map(|middle| {
            let degrees =
                middle + 0.012 * f64::from(tract_place.rough_normal()) + 0.004 * f64::from(rng.rough_normal());
            (degrees * 1e6).round() as i64
        });
        let mut ticket = rng.below(10_000);
        let mut use_of_land = USES.len() - 1;
        for (i, (_, share, ..)) in USES.iter().enumerate() {
            if ticket < *share {
                use_of_land = i;
                break;
            }
            ticket -= share;
        }
        let year = (zip_year + 19.0 * f64::from(rng.rough_normal())).round().clamp(1885.0, 2015.0);
        let log_sqft = 7.38 + USES[use_of_land].4 + 0.004 * (year - 1960.0) + 0.35 * dear + 0.32 * rng.normal();
        let log_value = 12.62 + dear + 0.55 * (log_sqft - 7.4) + 0.003 * (year - 1960.0) + 0.58 * rng.normal();
        let land_share =
            (0.56 + 0.1 * dear - 0.002 * (year - 1960.0) + 0.14 * f64::from(rng.rough_normal())).clamp(0.03, 0.97);
        let pool_rate = (if county == LOS_ANGELES { 0.187 } else { 0.166 }) * (1.0 + 0.8 * dear).clamp(0.2, 2.0);
        Property {
            parcel: Property::parcel(county, row),
            unknown: rng.unit() < 0.0038,
            county,
            zip,
            city,
            neighborhood: has_neighborhood.then_some(6_952 + 611 * (zip as i64 % 500) + 100_000 * county as i64),
            place,
            tract: 100_100 + 2_300 * zip as i64 + 100 * part as i64 + i64::from(part.is_multiple_of(3)),
            block: 1_000 * (1 + rng.below(4) as i64) + rng.below(20) as i64,
            use_of_land,
            year,
            log_sqft,
            log_value,
            land_share,
            pool: rng.unit() < pool_rate,
            delinquent: rng.unit() < 0.019,
            zip_error,
            seed,
            row,
        }
    }

    /// What the estimate's error is in the mean, for a sale on `day`.
    pub(crate) fn expected_log_error(&self, day: i32) -> f64 {
        let age = (2016.0 - self.year) / 50.0;
        let month = f64::from(day - DAY_2016) / 30.4;
        0.016 + 0.07 * (self.log_sqft - 7.38) + 0.015 * (age - 1.0) + self.zip_error
            - 0.07 * (self.land_share - 0.56)
            - if self.pool { 0.02 } else { 0.0 }
            + if self.delinquent { 0.05 } else { 0.0 }
            + 0.0015 * (month - 5.5)
    }

    /// The columns of the file, in its order.
    pub(crate) fn cells(&self) -> [(&'static str, Cell); 58] {
        use Cell::{Bool, Float, Int, Text};
        let mut rng = Rng::new(self.seed, self.row, 3);
        let known = !self.unknown;
        let inside = self.county == LOS_ANGELES;
        let county = &COUNTIES[self.county];
        let (use_id, _, use_code, units, _) = USES[self.use_of_land];
        let chance = |rng: &mut Rng, share: f64| rng.unit() < share && known;
        // Recorded inside Los Angeles alone, or outside alone.
        let only = |rng: &mut Rng, here: bool, share: f64| rng.unit() < share && here && known;

        let sqft = exp(self.log_sqft - 7.0) * 1_096.633_158_428_458_6;
        let has_rooms = chance(&mut rng, 0.9605);
        let has_sqft = chance(&mut rng, 0.9851);
        let sqft = sqft.round().clamp(120.0, 250_000.0);
        let beds = if has_rooms {
            (0.9 + sqft / 780.0 + 0.6 * f64::from(rng.rough_normal())).round().clamp(1.0, 12.0)
        } else {
            0.0
        };
        let halves = if inside { 1.0 } else { 2.0 };
        let baths = sqft / 800.0 + 0.1 + 0.35 * f64::from(rng.rough_normal()) + (self.year - 1960.0) * 0.008;
        let baths = if has_rooms { ((baths * halves).round() / halves).clamp(1.0, 14.0) } else { 0.0 };
        let value = exp_large(self.log_value).round().clamp(1_000.0, 50_000_000.0);
        let land = (value * self.land_share).round();
        let tax = ((value * (0.0116 + 0.0008 * f64::from(rng.rough_normal())).max(0.006) + rng.between(100.0, 500.0))
            * 100.0)
            .round()
            / 100.0;

        let kind = rng.unit();
        let sqft_if = |yes: bool| Int((yes && has_sqft).then_some(sqft as i64));
        let is_15 = (0.9247..0.9899).contains(&kind);
        let is_6 = (0.9899..0.9974).contains(&kind);
        let is_13 = kind >= 0.9974;
        let first_floor = only(&mut rng, !inside, 0.2145).then(|| (sqft * rng.between(0.5, 1.0)).round() as i64);
        let cars = only(&mut rng, !inside, 0.934).then(|| of(&mut rng, [(2, 75), (1, 17), (0, 3), (3, 4), (4, 1)]));
        let garage = cars.map(|cars| if cars == 0 { 0 } else { 210 * cars + 20 + rng.below(60) as i64 });
        let pool = self.pool && known;
        let spa_at_pool = pool && rng.unit() < 0.062;
        let spa_alone = !pool && chance(&mut rng, 0.0150);
        let stories = only(&mut rng, !inside, 0.722).then(|| 1 + i64::from(rng.unit() < 0.05 + sqft / 6000.0));
        let basement = chance(&mut rng, 0.000_55);
        let basement_sqft = (sqft * rng.between(0.2, 0.8)).round() as i64;
        let delinquent = self.delinquent && known;
        let census = (county.fips * 1_000_000 + self.tract) * 10_000 + self.block;
        let lot = match use_id {
            266 => exp_large(10.6 + 0.9 * rng.normal()),
            _ => exp(8.83 + 0.42 * rng.normal() + 0.25 * (self.log_sqft - 7.38)),
        };
        let county_code = match chance(&mut rng, 0.25) {
            true => {
                format!("{}{}", use_code.get(..3).unwrap_or(use_code), ['1', 'V', 'C', 'D', 'H'][rng.below(5) as usize])
            }
            false => use_code.to_owned(),
        };
        let zone = ZONES[(self.zip as usize + rng.below(4) as usize) % ZONES.len()];

        [
            ("parcelid", Int(Some(self.parcel))),
            (
                "airconditioningtypeid",
                Int(chance(&mut rng, if inside { 0.36 } else { 0.083 })
                    .then(|| of(&mut rng, [(1, 915), (13, 75), (5, 6), (11, 3), (9, 1)]))),
            ),
            (
                "architecturalstyletypeid",
                Int(chance(&mut rng, 0.002).then(|| of(&mut rng, [(7, 87), (8, 6), (21, 4), (2, 2), (3, 1)]))),
            ),
            ("basementsqft", Int(basement.then_some(basement_sqft))),
            ("bathroomcnt", Float(known.then_some(baths))),
            ("bedroomcnt", Int(known.then_some(beds as i64))),
            (
                "buildingclasstypeid",
                Int(chance(&mut rng, 0.0042).then(|| of(&mut rng, [(4, 73), (3, 19), (5, 6), (2, 1), (1, 1)]))),
            ),
            ("buildingqualitytypeid", Int(only(&mut rng, inside, 0.956).then(|| quality(self.year, &mut rng)))),
            ("calculatedbathnbr", Float((known && baths > 0.0).then_some(baths))),
            ("decktypeid", Int(chance(&mut rng, 0.0057).then_some(66))),
            ("finishedfloor1squarefeet", Int(first_floor)),
            ("calculatedfinishedsquarefeet", sqft_if(true)),
            ("finishedsquarefeet12", sqft_if(kind < 0.9247)),
            ("finishedsquarefeet13", sqft_if(is_13)),
            ("finishedsquarefeet15", sqft_if(is_15)),
            ("finishedsquarefeet50", Int(first_floor)),
            ("finishedsquarefeet6", sqft_if(is_6)),
            ("fips", Int(known.then_some(county.fips))),
            ("fireplacecnt", Int(only(&mut rng, !inside, 0.331).then(|| of(&mut rng, [(1, 86), (2, 12), (3, 2)])))),
            ("fullbathcnt", Int((known && baths > 0.0).then_some(baths as i64))),
            ("garagecarcnt", Int(cars)),
            ("garagetotalsqft", Int(garage)),
            ("hashottuborspa", Bool((spa_at_pool || spa_alone).then_some(true))),
            (
                "heatingorsystemtypeid",
                Int(chance(&mut rng, if inside { 0.80 } else { 0.195 }).then(|| match inside {
                    true => of(&mut rng, [(2, 73), (7, 26), (20, 1)]),
                    false => of(&mut rng, [(24, 70), (6, 24), (13, 3), (18, 3)]),
                })),
            ),
            ("latitude", Int(known.then_some(self.place[0]))),
            ("longitude", Int(known.then_some(self.place[1]))),
            ("lotsizesquarefeet", Int(chance(&mut rng, 0.911).then_some(lot.round() as i64))),
            ("poolcnt", Int(pool.then_some(1))),
            ("poolsizesum", Int((pool && rng.unit() < 0.0542).then(|| 300 + rng.below(500) as i64))),
            ("pooltypeid10", Int(spa_alone.then_some(1))),
            ("pooltypeid2", Int(spa_at_pool.then_some(1))),
            ("pooltypeid7", Int((pool && !spa_at_pool).then_some(1))),
            ("propertycountylandusecode", Text(chance(&mut rng, 0.9997).then_some(county_code))),
            ("propertylandusetypeid", Int(known.then_some(use_id))),
            ("propertyzoningdesc", Text(only(&mut rng, inside, 0.976).then(|| zone.to_owned()))),
            ("rawcensustractandblock", Float(known.then_some(census as f64 / 1e6))),
            ("regionidcity", Int(chance(&mut rng, 0.9827).then_some(self.city))),
            ("regionidcounty", Int(known.then_some(county.region))),
            ("regionidneighborhood", Int(self.neighborhood.filter(|_| known))),
            ("regionidzip", Int(chance(&mut rng, 0.9991).then_some(county.first_zip + self.zip as i64))),
            (
                "roomcnt",
                Int(known.then(|| if !inside && rng.unit() < 0.72 { beds as i64 + 2 + rng.below(3) as i64 } else { 0 })),
            ),
            ("storytypeid", Int(basement.then_some(7))),
            ("threequarterbathnbr", Int(chance(&mut rng, 0.1048).then(|| of(&mut rng, [(1, 98), (2, 2)])))),
            ("typeconstructiontypeid", Int(chance(&mut rng, 0.0023).then(|| of(&mut rng, [(6, 98), (4, 1), (10, 1)])))),
            ("unitcnt", Int(only(&mut rng, inside, 0.9755).then_some(units))),
            ("yardbuildingsqft17", Int(only(&mut rng, !inside, 0.085).then(|| 40 + rng.below(500) as i64))),
            ("yardbuildingsqft26", Int(chance(&mut rng, 0.0009).then(|| 60 + rng.below(400) as i64))),
            ("yearbuilt", Int(chance(&mut rng, 0.9836).then_some(self.year as i64))),
            ("numberofstories", Int(stories)),
            ("fireplaceflag", Bool(chance(&mut rng, 0.0017).then_some(true))),
            ("structuretaxvaluedollarcnt", Int(chance(&mut rng, 0.9853).then_some((value - land) as i64))),
            ("taxvaluedollarcnt", Int(chance(&mut rng, 0.9895).then_some(value as i64))),
            ("assessmentyear", Int(known.then_some(2015))),
            ("landtaxvaluedollarcnt", Int(chance(&mut rng, 0.9810).then_some(land as i64))),
            ("taxamount", Float(chance(&mut rng, 0.9933).then_some(tax))),
            ("taxdelinquencyflag", Text(delinquent.then(|| "Y".to_owned()))),
            (
                "taxdelinquencyyear",
                Int(delinquent.then(|| of(&mut rng, [(14, 60), (15, 15), (13, 10), (12, 8), (11, 7)]))),
            ),
            ("censustractandblock", Int(chance(&mut rng, 0.9785).then_some(census))),
        ]
    }
}

/// 1 is the best, 12 the worst.
fn quality(year: f64, rng: &mut Rng) -> i64 {
    let grade = 6.2 - (year - 1960.0) / 25.0 + 1.3 * f64::from(rng.rough_normal());
    of(rng, [(grade as i64, 3), (7, 1), (4, 1)]).clamp(1, 12)
}
