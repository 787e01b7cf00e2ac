// Opens every page of the built book in Chromium, as a reader would, and says what is wrong with it.
//
//     node book/check_pages.mjs _build/html _build/node/node_modules
//
// Checked, in light and dark: axe-core, errors in the console, nothing fetched from a network. On a phone: no page wider
// than the screen. No page and its images above 3 MB. axe-core and playwright-core come from npm (`make check-pages`
// installs them); the browser is the machine's own, CHROMIUM names another.
import { existsSync, readdirSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

// What the theme (sphinx-book-theme 1.1.4) breaks on every page of every book: the search button's name, and its logo
// outside of landmarks. All else is ours.
const KNOWN = new Set(["label-content-name-mismatch", "region"]);
// On each first visit, as an error.
const THEME_SAYS = "Got invalid theme mode";
const HEAVY = 3_000_000;
const DESK = { viewport: { width: 1300, height: 900 } };
const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true };
const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

// Opens an address in a page of its own; what `look` says is collected with what the browser complains of.
async function open(browser, address, options, look) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith(THEME_SAYS)) faults.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`script: ${error.message}`));
  page.on("request", (request) => /^https?:/.test(request.url()) && faults.push(`fetches ${request.url()}`));
  await page.goto(address, { waitUntil: "load" });
  faults.push(...(await look(page)));
  await context.close();
  return faults;
}

async function accessible(page, axe) {
  await page.addScriptTag({ path: axe });
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"], preload: false }));
  return violations
    .filter((violation) => !KNOWN.has(violation.id))
    .map(({ id, help, nodes }) => `${id}: ${help} (${nodes.length}, first ${nodes[0].target.join(" ")})`);
}

async function fitsThePhone(page) {
  const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  const images = await page.evaluate(() => [...document.images].map((image) => image.src));
  const shown = new Set([page.url(), ...images].filter((address) => address.startsWith("file:")));
  const bytes = [...shown].map((address) => statSync(fileURLToPath(address)).size).reduce((a, b) => a + b);
  const faults = wide > screen ? [`is ${wide} pixels wide on a screen of ${screen}`] : [];
  return bytes > HEAVY ? [...faults, `has ${(bytes / 1e6).toFixed(1)} MB with its images`] : faults;
}

const [folder, modules] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
if (!modules || !executablePath) {
  console.error("Usage: node book/check_pages.mjs SITE NODE_MODULES, with Chromium or Chrome installed (or CHROMIUM=its path).");
  process.exit(2);
}
const site = resolve(folder);
const load = createRequire(join(resolve(modules), "x.js"));
const axe = load.resolve("axe-core/axe.min.js");
const browser = await load("playwright-core").chromium.launch({ executablePath, args: ["--no-sandbox", "--allow-file-access-from-files"] });
// Redirects, the search page and the folders that start with _ are the theme's.
const files = readdirSync(site, { recursive: true })
  .filter((file) => /^[^_].*\.html$/.test(file) && !["index.html", "search.html", "genindex.html"].includes(file))
  .sort();
let count = 0;
for (const file of files) {
  const address = pathToFileURL(join(site, file)).href;
  const faults = { light: [], dark: [] };
  for (const colorScheme of Object.keys(faults)) {
    faults[colorScheme] = await open(browser, address, { ...DESK, colorScheme }, (page) => accessible(page, axe));
  }
  faults.phone = await open(browser, address, PHONE, fitsThePhone);
  for (const [where, found] of Object.entries(faults)) for (const fault of found) console.log(`${file}: ${where}: ${fault}`);
  count += Object.values(faults).flat().length;
}
await browser.close();
console.log(count ? `${count} faults on ${files.length} pages` : `${files.length} pages are fine.`);
process.exit(count ? 1 : 0);
